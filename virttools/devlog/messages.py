"""Values: what a program sent to dev/log, read tolerantly (RFC 3164, RFC 5424) and made harmless.

Nothing that was sent can begin a line of its own, move a cursor, or turn the reading direction.
"""

import re
from dataclasses import dataclass

from virttools.devlog import lines

LARGEST = 8192
"""Bytes of one message; what is longer is cut, and says so."""

CUT = b" [cut]"
DEFAULT = 13  # user.notice, as RFC 3164 has it for what says nothing
_HIGHEST = 191

_CONTROLS = bytes([*range(32), 127])
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_STAMP = rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d "
_TAG = rb"[^\s:\[\]\x00-\x1f\x7f-\xff]{1,64}"
_HEAD = re.compile(rb"<(\d{1,3})>(?:%b)?(%b)(?:\[[^\[\]\s]{0,32}\])?" % (_STAMP, _TAG))
_PRIORITY = re.compile(rb"<(\d{1,3})>")
_OLD = re.compile(rb"(?:%b)?(?:(%b)(?:\[[^\[\]\s]{0,32}\])?:(?: |\Z))?" % (_STAMP, _TAG))
_NEW = re.compile(
    rb"1 (?:-|\d{4}-\d\d-\d\d[^ ]{1,40}) [!-~]{1,255} ([!-~]{1,48}) [!-~]{1,128} ([!-~]{1,32})"
    rb"(?: (-|(?:\[[^\]\"]{1,255}(?:\"(?:\\.|[^\"\\])*\"[^\]\"]{0,255})*\])+))?(?: |\Z)",
    re.DOTALL,
)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Message:
    """priority: facility << 3 | severity. tag: without blanks and brackets. text: harmless UTF-8."""

    priority: int
    tag: bytes
    text: bytes


def read(data: bytes) -> Message:
    """What a datagram says; whatever does not look like syslog is text of user.notice."""
    data = data.rstrip(b"\n\r\0")
    found = _PRIORITY.match(data)
    if found is None or int(found[1]) > _HIGHEST:
        return Message(DEFAULT, *_old(data))
    rest = data[found.end() :]
    new = _NEW.match(rest)
    tag, text = _old(rest) if new is None else _new(new, rest[new.end() :])
    return Message(_believed(int(found[1])), tag, text)


def _believed(priority: int) -> int:
    """The kernel does not log by dev/log: who claims its facility is a user (as journald has it)."""
    return priority if priority > 7 else priority | 8


def _old(rest: bytes) -> tuple[bytes, bytes]:
    found = _OLD.match(rest)
    assert found is not None  # every part is optional
    return found[1] or b"-", harmless(rest[found.end() :])


def _new(found: re.Match[bytes], text: bytes) -> tuple[bytes, bytes]:
    said = [part for part in (found[2], found[3]) if part not in (None, b"-")]
    tag = re.sub(rb"[:\[\]]", b"_", found[1])
    return tag, harmless(b" ".join([*said, text.removeprefix(_BOM)]))


def is_plain(data: bytes) -> bool:
    """Whether data is printable ASCII: nothing in it needs to be made harmless."""
    return data.isascii() and len(data.translate(None, _CONTROLS)) == len(data)


def harmless(text: bytes) -> bytes:
    """Text with what is not printable written out: control characters, bidi marks, bad UTF-8."""
    if is_plain(text):
        return text
    told = text.decode("utf-8", "backslashreplace")
    if not told.isprintable():
        told = "".join(one if one.isprintable() else _escaped(one) for one in told)
    return told.encode()


def _escaped(one: str) -> str:
    number = ord(one)
    short = f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    return _ESCAPES.get(one) or (short if number < 0x10000 else f"\\U{number:08x}")


class Framing:
    """Turns datagrams into what follows the domain on a line; remembers the heads it has read.

    A program's head (`<30>Nov 20 15:13:49 sshd[12]`) repeats: its prefix is looked up, not made.
    """

    __slots__ = ("_known",)

    MOST = 4096

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int, int], bytes] = {}

    def __len__(self) -> int:
        return len(self._known)

    def frame(self, data: bytes, pid: int, uid: int) -> bytes:
        if data.isascii() and len(data.translate(None, _CONTROLS)) == len(data):
            head, _, text = data.partition(b": ")
            known = self._known.get((head, pid, uid))
            if known is not None:
                return known + text
            if len(head) < len(data) - 1:
                self._learn(head, pid, uid)
        message = read(data)
        return lines.prefix(message.priority, message.tag, pid, uid) + message.text

    def _learn(self, head: bytes, pid: int, uid: int) -> None:
        found = _HEAD.fullmatch(head)
        if found is None or int(found[1]) > _HIGHEST:
            return
        if len(self._known) >= self.MOST:
            self._known.clear()
        made = lines.prefix(_believed(int(found[1])), found[2], pid, uid)
        self._known[head, pid, uid] = made
