"""The client of SMTP that `virt test` has, against servers that only pretend."""

import os
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pretending import listening
from tests.system.waiting import PATIENCE
from virttools.manifest.model import Origin, Probe, ProbeKind
from virttools.probe import smtp
from virttools.probe.outcome import Call, Login, Refused

ANN = Login("ann", "", is_ours=True)


@contextmanager
def pretending(answers: dict[str, str]) -> Iterator[int]:
    """A server that says the same to each command, 250 unless told otherwise; its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(answers.get("hello", "220 here").encode() + b"\r\n")
            while line := self.rfile.readline():
                word = line[:4].decode().strip().upper()
                self.wfile.write(answers.get(word, "250 fine").encode() + b"\r\n")
                while word == "DATA" and (part := self.rfile.readline()) and part != b".\r\n":
                    pass
                if word == "DATA":
                    self.wfile.write(answers.get(".", "250 taken").encode() + b"\r\n")

    with listening(Handler) as port:
        yield port


def told(
    folder: Path, answers: dict[str, str], login: Login | None = ANN, seconds: float = 2 * PATIENCE
) -> str:
    """What the client says of such a server."""
    probe = Probe("smtp", ProbeKind.SMTP, None, True, False, "/", "", Origin("x", 1))
    fd = os.open(folder, os.O_PATH)
    try:
        with pretending({"DATA": "354 go on", **answers}) as port:
            call = Call("127.0.0.1", port, "d.test", probe, login, seconds=seconds, tree_fd=fd)
            return smtp.ask(call)
    except Refused as refused:
        return str(refused)
    finally:
        os.close(fd)


def test_a_server_that_only_takes_mail_is_none(tmp_path: Path) -> None:
    """What was taken must be found, and it must be this message."""
    (tmp_path / "var/mail").mkdir(parents=True)
    (tmp_path / "var/mail/ann").write_text("Subject: virt test of another day\n")
    assert told(tmp_path, {}, seconds=4) == "taken, but after 2 s not in /var/mail/ann"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"hello": "554 go away"}, "greeting: 554 go away"),
        ({"MAIL": "451 later"}, "virt@d.test: 451 later"),
        ({"RCPT": "550 who"}, "ann@d.test: 550 who"),
        ({"DATA": "452 full"}, "message: 452 full"),
        ({".": "452 full now"}, "message: 452 full now"),
    ],
)
def test_the_step_that_fails_is_named(
    answers: dict[str, str], expected: str, tmp_path: Path
) -> None:
    """With what the server said to it."""
    assert told(tmp_path, answers) == expected


def test_without_a_login_nothing_is_handed_in(tmp_path: Path) -> None:
    """Only whether there is a postmaster."""
    assert told(tmp_path, {"DATA": "500 never"}, login=None) == "greeting, postmaster"
    assert told(tmp_path, {"RCPT": "550 no"}, login=None) == "postmaster@d.test: 550 no"
