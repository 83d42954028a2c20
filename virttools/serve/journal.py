"""Doer: the server's log lines, to syslogd or to standard error, never to a client."""

import _socket
import os
import select
import time

_DAEMON = 3 << 3
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
_MOST_KEPT = 10_000
TRIED_AGAIN = 1.0
"""Seconds until `flush` is worth a call where nothing else happens."""
_PATIENCE = 0.2
_SENT, _FULL, _GONE = range(3)
_AGAIN = (11, 105)  # EAGAIN, ENOBUFS


class Journal:
    """Lines go out at once where that needs no waiting; else `flush`, in a thread that may wait, sends them.

    It waits a moment for a slow syslogd, not for one that hangs: that must not hang the server.
    """

    __slots__ = ("_hangs_until", "_kept", "_lost", "_prefix", "_socket", "_untold")

    def __init__(self, *, to_stderr: bool) -> None:
        self._kept: list[tuple[int, str]] = []
        self._hangs_until = 0.0
        self._lost = self._untold = 0
        self._prefix = b"virt-serve[%d]: " % os.getpid()
        self._socket: _socket.socket | None = None
        if not to_stderr:
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            self._connect(self._socket)

    @property
    def fd(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def write(self, level: int, text: str) -> None:
        """Log one line; never waits for syslogd."""
        if self._kept or self._send(level, text) != _SENT:
            if len(self._kept) < _MOST_KEPT:
                self._kept.append((level, text))
            else:
                self._lose()

    def is_behind(self) -> bool:
        """Whether lines are left over from the last `flush`."""
        return bool(self._kept)

    def flush(self) -> None:
        """Send what is kept, as much of it as is taken within a moment; what nobody can take is counted."""
        now = time.monotonic()
        deadline = now + _PATIENCE if now >= self._hangs_until else now
        done, has_waited = 0, False
        while done < len(self._kept):
            outcome = self._send(*self._kept[done])
            if outcome == _FULL:
                if has_waited or not self._has_room(deadline):
                    self._hangs_until = time.monotonic() + TRIED_AGAIN
                    break
                has_waited = True
                continue
            has_waited = False
            if outcome == _GONE:
                self._lose()
            done += 1
        del self._kept[:done]
        if self._lost and not self._kept:
            text = f"{self._lost} lines of the log were lost"
            self._lost = 0 if self._send(WARNING, text) == _SENT else self._lost

    def _has_room(self, deadline: float) -> bool:
        """Wait until syslogd has taken something."""
        left = deadline - time.monotonic()
        if self._socket is None or left <= 0:
            return False
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLOUT)
        return bool(poll.poll(int(left * 1000) + 1))

    def _lose(self) -> None:
        self._lost += 1
        self._untold += 1

    def losses(self) -> int:
        """How many lines were lost since this was asked last."""
        found, self._untold = self._untold, 0
        return found

    def _send(self, level: int, text: str) -> int:
        line = text.encode("utf-8", "backslashreplace")
        if self._socket is None:
            return _print(b"virt serve: " + line + b"\n")
        message = b"<%d>" % (_DAEMON | level) + self._prefix + line
        for _ in range(2):
            try:
                self._socket.send(message, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno in _AGAIN:
                    return _FULL
                self._connect(self._socket)  # syslogd was started anew
            else:
                return _SENT
        return _GONE

    @staticmethod
    def _connect(connection: _socket.socket) -> None:
        try:  # noqa: SIM105  contextlib would be loaded for it
            connection.connect("/dev/log")
        except OSError:
            pass  # no syslogd yet


def _print(line: bytes) -> int:
    try:
        os.write(2, line)
    except OSError:
        return _GONE  # who read it has left, or its terminal
    return _SENT
