"""Doer: appends to log files below one folder that is ours, and keeps the ones in use open."""

import os
import stat
from collections.abc import Callable
from errno import EINVAL, EMFILE

from virttools.tree.beneath import open_beneath

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
_MODE = 0o640


class Files:
    """Files by their path in the folder. The longest unused is closed when too many are open.

    broken: told once when a file cannot be written, and how many lines it lost when it can again.
    """

    __slots__ = ("_broken", "_folder_fd", "_lost", "_most", "_open")

    def __init__(self, folder_fd: int, most: int, broken: Callable[[str, str, int], None]) -> None:
        self._folder_fd = folder_fd
        self._most = max(most, 8)
        self._open: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._broken = broken

    def append(self, path: str, text: bytes) -> None:
        """Write whole lines. What cannot be written is counted, and said."""
        try:
            self._write(path, text)
        except OSError as error:
            is_new = path not in self._lost
            self._lost[path] = self._lost.get(path, 0) + text.count(b"\n")
            self.close(path)
            if is_new:
                self._broken(path, (error.strerror or str(error)).lower(), 0)
            return
        if self._lost:
            lost = self._lost.pop(path, 0)
            if lost:
                self._broken(path, "", lost)

    def _write(self, path: str, text: bytes) -> None:
        fd = self._open.get(path)
        if fd is None:
            fd = self._opened(path)
        elif len(self._open) >= self._most:
            self._open[path] = self._open.pop(path)  # the last in line is the last used
        written = os.write(fd, text)
        while written < len(text):
            text = text[written:]
            written = os.write(fd, text)

    def _opened(self, path: str) -> int:
        while len(self._open) >= self._most:
            self.close(next(iter(self._open)))
        try:
            fd = open_beneath(self._folder_fd, path, _FLAGS, _MODE)
        except OSError as error:
            if error.errno != EMFILE:
                raise
            self.reopen()  # more sockets came than there was room for at first
            fd = open_beneath(self._folder_fd, path, _FLAGS, _MODE)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(fd)
            raise OSError(EINVAL, "it is no file, or has a second name", path)
        self._open[path] = fd
        return fd

    def close(self, path: str) -> None:
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    def reopen(self) -> None:
        """Close all: the next line goes to whatever has the name then."""
        for path in tuple(self._open):
            self.close(path)
