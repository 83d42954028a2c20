"""Doer: the server's log lines, to syslogd or to standard error, never to a client."""

import _socket
import os

_DAEMON = 3 << 3
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
_MOST_KEPT = 10_000
_AGAIN = (11, 105)  # EAGAIN, ENOBUFS


class Journal:
    """Lines go out at once where that needs no waiting; else `flush`, in a thread that may wait, sends them."""

    __slots__ = ("_kept", "_lost", "_prefix", "_socket", "_untold")

    def __init__(self, *, to_stderr: bool) -> None:
        self._kept: list[tuple[int, str]] = []
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
        if self._kept or not self._send(level, text, _socket.MSG_DONTWAIT):
            if len(self._kept) < _MOST_KEPT:
                self._kept.append((level, text))
            else:
                self._lose()

    def flush(self) -> None:
        """Send what is kept, waiting for a slow syslogd; what it never takes is counted."""
        kept, self._kept = self._kept, []
        for level, text in kept:
            if not self._send(level, text, 0):
                self._lose()
        if self._lost and self._send(WARNING, f"{self._lost} lines of the log were lost", 0):
            self._lost = 0

    def _lose(self) -> None:
        self._lost += 1
        self._untold += 1

    def losses(self) -> int:
        """How many lines were lost since this was asked last."""
        found, self._untold = self._untold, 0
        return found

    def _send(self, level: int, text: str, flags: int) -> bool:
        line = text.encode("utf-8", "backslashreplace")
        if self._socket is None:
            os.write(2, b"virt serve: " + line + b"\n")
            return True
        message = b"<%d>" % (_DAEMON | level) + self._prefix + line
        for _ in range(2):
            try:
                self._socket.send(message, flags | _socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno in _AGAIN:
                    return False
                self._connect(self._socket)  # syslogd was started anew
            else:
                return True
        return False

    @staticmethod
    def _connect(connection: _socket.socket) -> None:
        try:  # noqa: SIM105  contextlib would be loaded for it
            connection.connect("/dev/log")
        except OSError:
            pass  # no syslogd yet
