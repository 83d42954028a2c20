"""What programs send to dev/log: read tolerantly, made harmless, and never a line of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.devlog import lines, messages
from virttools.devlog.forward import journal_packet, syslog_packet
from virttools.devlog.messages import Message

DATAGRAMS = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.from_regex(rb"<[0-9]{1,3}>[A-Z][a-z]{2} [ 0-9]{2} ..:..:.. .{0,20}\[?.{0,9}\]?: .*"),
    st.from_regex(rb"<[0-9]{1,3}>1 [^ ]{1,30} [^ ]+ [^ ]+ [^ ]+ [^ ]+ (-|\[.*\]) .*"),
)


@pytest.mark.parametrize(
    ("data", "read"),
    [
        # RFC 3164 as syslog(3) sends it: no host
        (b"<30>Nov  2 15:13:49 sshd[12]: hello: you", Message(30, b"sshd", b"hello: you")),
        (b"<30>sshd: hello", Message(30, b"sshd", b"hello")),
        (b"<30>Nov 20 15:13:49 my prog: hello", Message(30, b"-", b"my prog: hello")),
        (b"<13>a:", Message(13, b"a", b"")),
        (b"hello", Message(13, b"-", b"hello")),
        (b"", Message(13, b"-", b"")),
        (b"<13>a: hello\n\0", Message(13, b"a", b"hello")),
        # RFC 5424
        (
            b'<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [x@3 a="3" b="\\"]\\" b"] \xef\xbb\xbfAn event',
            Message(165, b"evntslog", b'ID47 [x@3 a="3" b="\\"]\\" b"] An event'),
        ),
        (b"<34>1 - - su - - - failed", Message(34, b"su", b"failed")),
        # what is no priority is text; the kernel's facility is nobody's here
        (b"<192>a: b", Message(13, b"<192>a", b"b")),
        (b"<x>a b", Message(13, b"-", b"<x>a b")),
        (b"<2>kernel: oops", Message(10, b"kernel", b"oops")),
    ],
)  # fmt: skip
def test_messages_are_read_as_they_come(data: bytes, read: Message) -> None:
    """Both formats, and what is neither, become priority, tag and text."""
    assert messages.read(data) == read


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a\nNov 20 15:13:49 sshd[1]: b", rb"a\nNov 20 15:13:49 sshd[1]: b"),
        (b"\x1b[2J\x07\x7f", rb"\x1b[2J\x07\x7f"),
        (b"a\tb\rc\0d", rb"a\tb\rc\x00d"),
        ("é 漢".encode(), "é 漢".encode()),
        ("a\u202eb\u2028c\x9b".encode(), rb"a\u202eb\u2028c\x9b"),
        ("\U000e0041".encode(), rb"\U000e0041"),
        (b"\xff\xc3", rb"\xff\xc3"),
    ],
)
def test_what_is_not_printable_is_written_out(text: bytes, told: bytes) -> None:
    """Line ends, escape sequences, bidirectional marks and bad UTF-8 are seen, not obeyed."""
    assert messages.harmless(text) == told


@given(DATAGRAMS, st.integers(1, 1 << 22), st.integers(0, 0xFFFFFFFE))
def test_nothing_that_is_sent_forges_a_line(data: bytes, pid: int, uid: int) -> None:
    """Whatever comes is one printable line, with the domain, pid and uid that the kernel knows."""
    framing = messages.Framing()
    whole = lines.stamp(1e9) + b" domain1.com " + framing.frame(data, pid, uid)
    text = whole.decode()
    assert text.isprintable()
    found = lines.read(text)
    assert found is not None
    assert (found.domain, found.pid, found.uid) == ("domain1.com", pid, uid)


@given(DATAGRAMS)
def test_a_remembered_head_says_the_same(data: bytes) -> None:
    """The short cut for heads that repeat writes what reading anew writes."""
    framing = messages.Framing()
    first = framing.frame(data, 7, 0)
    message = messages.read(data)
    anew = lines.prefix(message.priority, message.tag, 7, 0) + message.text
    assert first == framing.frame(data, 7, 0) == anew


def test_remembered_heads_are_bounded() -> None:
    """A program that changes its head with each message fills no memory."""
    framing = messages.Framing()
    for number in range(3 * framing.MOST):
        framing.frame(b"<13>a%d: b" % number, 1, 0)
    assert len(framing) <= framing.MOST


@given(DATAGRAMS)
def test_a_message_is_bounded(data: bytes) -> None:
    """Writing out what is not printable makes a message at most six times as long."""
    assert len(messages.read(data).text) <= 6 * len(data)


def test_a_line_is_read_back() -> None:
    """What `virt log tail` reads is what was written."""
    text = (lines.stamp(1e9) + b" domain1.com " + lines.prefix(86, b"sshd", 12, 1000)).decode()
    found = lines.read(text + "hello: you\n")
    assert found is not None
    assert (found.facility, found.severity, found.uid) == ("authpriv", "info", 1000)
    assert (found.tag, found.pid, found.text) == ("sshd", 12, "hello: you")
    assert lines.read("Nov 20 15:13:49 host sshd[12]: hello") is None


def test_the_host_is_told_the_domain() -> None:
    """To a syslogd the domain comes before the tag, as in the HOWTO; to a journal in a field."""
    message = Message(30, b"sshd", b"hello")
    packet = syslog_packet(message, "domain1.com", 12, 1e9)
    assert packet.startswith(b"<30>Sep  9 ")
    assert packet.endswith(b" domain1.com sshd[12]: hello")
    fields = journal_packet(message, "domain1.com", 12, 1000).splitlines()
    assert {b"MESSAGE=hello", b"VIRT_DOMAIN=domain1.com", b"SYSLOG_PID=12"} <= {*fields}
    assert {b"PRIORITY=6", b"SYSLOG_FACILITY=3", b"VIRT_UID=1000"} <= {*fields}
