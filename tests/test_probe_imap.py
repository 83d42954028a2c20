"""The client of IMAP that `virt test` has, against servers that only pretend."""

import socketserver
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.pretending import listening
from tests.system.waiting import PATIENCE
from virttools.manifest.model import Origin, Probe, ProbeKind
from virttools.probe import imap
from virttools.probe.outcome import Call, Login, Refused

ANN = Login("ann", "sécret", is_ours=True)
LETTER = ("* 1 FETCH (BODY[]<0> {18}", "Subject: virt test)")
GREEN = "login, 1 messages, fetched one"
GOOD = {"EXAMINE": ("* 1 EXISTS",), "FETCH": LETTER}


@contextmanager
def pretending(answers: dict[str, tuple[str, ...]], heard: list[str]) -> Iterator[int]:
    """A server that says these lines to a command and then OK, unless the last of them is its answer."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say(*answers.get("hello", ("* OK here",)))
            while line := self.rfile.readline().decode().rstrip():
                heard.append(line)
                tag, _, rest = line.partition(" ")
                word = rest.split()[0].upper()
                said = answers.get(word, ())
                if word == "CAPABILITY":
                    said = ("* CAPABILITY IMAP4rev1 " + " ".join(said),)
                if word == "AUTHENTICATE" and not said:
                    self.say("+ ")
                    heard.append(self.rfile.readline().decode().rstrip())
                is_refusal = bool(said) and said[-1].startswith("NO")
                self.say(*(said[:-1] if is_refusal else said))
                self.say(f"{tag} {said[-1] if is_refusal else 'OK done'}")

        def say(self, *lines: str) -> None:
            self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    with listening(Handler) as port:
        yield port


def told(
    answers: dict[str, tuple[str, ...]], login: Login | None = ANN, heard: list[str] | None = None
) -> str:
    """What the client says of such a server."""
    probe = Probe("imap", ProbeKind.IMAP, None, True, False, "/", "", Origin("x", 1))
    said: list[str] = [] if heard is None else heard
    with pretending({"CAPABILITY": ("AUTH=PLAIN",), **GOOD, **answers}, said) as port:
        try:
            return imap.ask(Call("127.0.0.1", port, "d.test", probe, login, seconds=2 * PATIENCE))
        except Refused as refused:
            return str(refused)


def test_a_message_is_looked_at_and_none_counts_as_read() -> None:
    """The box is opened read-only, and the text is peeked at; the password may have any letters."""
    heard: list[str] = []
    assert told({}, heard=heard) == GREEN
    commands = [line.partition(" ")[2] for line in heard]
    assert "EXAMINE INBOX" in commands
    assert "FETCH 1 (BODY.PEEK[]<0.4194304>)" in commands
    assert "AGFubgBzw6ljcmV0" in heard


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"hello": ("* BYE go away",)}, "greeting: * BYE go away"),
        ({"CAPABILITY": ("STARTTLS",), "STARTTLS": ("NO not today",)}, "encryption: "),
        ({"AUTHENTICATE": ("NO who are you",)}, "login: who are you"),
        ({"CAPABILITY": ()}, "login: without AUTH=PLAIN it takes ASCII only"),
        ({"EXAMINE": ("NO it is on fire",)}, "mailbox: it is on fire"),
        ({"EXAMINE": ("* 2 EXISTS",)}, "mailbox: 2 messages, where one was put"),
        ({"FETCH": ("NO not this one",)}, "fetching: not this one"),
        ({"FETCH": ()}, "fetching: OK"),
        ({"FETCH": ("* 1 FETCH (BODY[]<0> {4}", "none)")}, "fetching: not the message"),
    ],
)
def test_the_step_that_fails_is_named(answers: dict[str, tuple[str, ...]], expected: str) -> None:
    """With what the server said to it."""
    assert told(answers).startswith(expected)


def test_somebodys_own_mailbox_may_hold_anything() -> None:
    """Or nothing; and who has no name is greeted."""
    bob = Login("bob", "secret", is_ours=False)
    assert told({"CAPABILITY": ()}, bob) == GREEN
    assert told({"EXAMINE": ("* 0 EXISTS",)}, bob) == "login, 0 messages"
    assert told({"FETCH": ("* 1 FETCH (BODY[]<0> {4}", "none)")}, bob) == GREEN
    assert told({"AUTHENTICATE": ("NO",)}, None) == "greeting"
