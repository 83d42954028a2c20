"""A program on a pseudo-terminal of its own, and somebody who types."""

import os
import pty
import select
import signal
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tests.system.waiting import PATIENCE


class Terminal:
    """What the program has shown so far is in `shown`; `expect` reads on until a text comes."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.shown = ""
        self._fd = fd
        self._seen = 0
        self._status: int | None = None

    def type(self, text: str) -> None:
        """Send keys as they are; Enter is a carriage return."""
        os.write(self._fd, text.encode())

    def expect(self, text: str) -> str:
        """Wait until the program shows a text after what was expected before; all up to it."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.shown}"
            assert self._read(deadline), f"ended before {text!r}:\n{self.shown}"
        before = self.shown[self._seen : at]
        self._seen = at + len(text)
        return before

    def end(self) -> int:
        """Wait until the program ends by itself; its status as a shell has it."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            assert time.monotonic() < deadline, f"it never ended:\n{self.shown}"
        return self.reap()

    def modes(self) -> list[Any]:
        """The modes of the terminal, as tcgetattr(3) has them."""
        return termios.tcgetattr(self._fd)

    def hang_up(self) -> None:
        """The terminal goes away, as when a connection breaks: SIGHUP, and EIO for who reads."""
        os.close(self._fd)
        self._fd = -1

    def reap(self) -> int:
        """Wait for the program's status, without reading what it still shows."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        """For a program that a failed test left running; the terminal is closed."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.reap()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return True
        try:
            got = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.shown += got.decode(errors="replace").replace("\r\n", "\n")
        return bool(got)


@contextmanager
def running(
    argv: Sequence[str], env: Mapping[str, str], *, lines: int = 24, columns: int = 80
) -> Iterator[Terminal]:
    """Start a program by its path; the terminal is its controlling one."""
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.execve(argv[0], list(argv), dict(env))
        finally:
            os._exit(127)
    terminal = Terminal(pid, fd)
    try:
        _size(fd, lines, columns)
        yield terminal
    finally:
        terminal.kill()


def _size(fd: int, lines: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
