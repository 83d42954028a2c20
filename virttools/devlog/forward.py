"""Doer: passes messages on to the host's syslog (`DOMAIN TAG[PID]: TEXT`) or its journal (fields).

Never waits: what the host does not take at once is queued; beyond _MOST the oldest goes, counted.
"""

import socket
import time
from collections import deque
from contextlib import suppress
from errno import EMSGSIZE

from virttools.devlog.messages import Message

SYSLOG = "/dev/log"
JOURNAL = "/run/systemd/journal/socket"

_MOST = 10_000
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),  # no locale's
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


def target(word: str) -> str:
    """The socket that `syslog`, `journal` or a path means."""
    return {"syslog": SYSLOG, "journal": JOURNAL}.get(word, word)


def syslog_packet(message: Message, domain: str, pid: int, now: float) -> bytes:
    """What syslogd takes from a program of its own host: no host name, the domain before the tag."""
    local = time.localtime(now)
    when = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2} {time.strftime('%H:%M:%S', local)}"
    head = f"<{message.priority}>{when} {domain} {message.tag.decode()}[{pid}]: "
    return head.encode() + message.text


def journal_packet(message: Message, domain: str, pid: int, uid: int) -> bytes:
    """A native entry (systemd.io/JOURNAL_NATIVE_PROTOCOL); text is one line, so no length is needed."""
    fields = (
        b"MESSAGE=" + message.text,
        b"PRIORITY=%d" % (message.priority & 7),
        b"SYSLOG_FACILITY=%d" % (message.priority >> 3),
        b"SYSLOG_IDENTIFIER=" + message.tag,
        b"SYSLOG_PID=%d" % pid,
        b"VIRT_DOMAIN=" + domain.encode(),
        b"VIRT_UID=%d" % uid,
    )
    return b"\n".join(fields) + b"\n"


class Forward:
    """The way to one socket of the host, by name: it may be bound anew at any time."""

    __slots__ = ("_is_journal", "_path", "_queue", "_socket", "lost")

    def __init__(self, word: str) -> None:
        self._path = target(word)
        self._is_journal = self._path == JOURNAL
        self._queue: deque[bytes] = deque()
        self._socket: socket.socket | None = None
        self.lost = 0

    def pass_on(self, message: Message, domain: str, pid: int, uid: int, now: float) -> None:
        packet = (
            journal_packet(message, domain, pid, uid)
            if self._is_journal
            else syslog_packet(message, domain, pid, now)
        )
        if len(self._queue) >= _MOST:
            self._queue.popleft()
            self.lost += 1
        self._queue.append(packet)

    @property
    def is_waiting(self) -> bool:
        return bool(self._queue)

    def push(self) -> int | None:
        """Send what the host takes now; the descriptor on which it will take more, or None."""
        try:
            while self._queue:
                self._connected().send(self._queue[0])
                self._queue.popleft()
        except BlockingIOError:
            return self._connected().fileno()
        except OSError as error:
            if error.errno == EMSGSIZE:
                self._queue.popleft()
                self.lost += 1
            self._forget()
        return None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            made.setblocking(False)
            with suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            try:
                made.connect(self._path)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
