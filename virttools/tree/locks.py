"""Doer: flock(2) on files of a folder that only we may write; a holder's death frees its locks.

Light enough for the fast ways: no dataclasses, contextlib, typing.
"""

import fcntl
import os
from collections.abc import Callable

from virttools.errors import ApplyError, Busy
from virttools.tree.processes import command_name, lock_holders


class Locks:
    """The locks that one Root holds, each counted, so that who holds one may take it again."""

    __slots__ = ("_dir_fd", "_held", "_is_wanted")

    def __init__(self, dir_fd: int, is_wanted: Callable[[str], bool]) -> None:
        self._dir_fd = dir_fd
        self._is_wanted = is_wanted
        self._held: dict[str, tuple[int, int, bool]] = {}

    def take(self, name: str, *, shared: bool, wait: bool) -> None:
        """Raises Busy where another process, or this one for reading only, has it."""
        if name not in self._held:
            try:
                fd = acquire(self._dir_fd, name, shared=shared, wait=wait)
            except BlockingIOError as error:
                raise self._busy(name) from error
            except OSError as error:
                raise refusal(_what(name), error) from error
            self._held[name] = (fd, 1, shared)
            return
        fd, depth, is_shared = self._held[name]
        if is_shared and not shared:
            raise self._busy(name)
        self._held[name] = (fd, depth + 1, is_shared)

    def free(self, name: str) -> None:
        fd, depth, shared = self._held[name]
        if depth > 1:
            self._held[name] = (fd, depth - 1, shared)
            return
        del self._held[name]
        if not shared and not name.startswith(".") and not self._is_wanted(name):
            os.unlink(name, dir_fd=self._dir_fd)
        os.close(fd)

    def _busy(self, name: str) -> Busy:
        pids = lock_holders(self._dir_fd, name)
        who = ", ".join(f"{pid} ({command_name(pid)})" for pid in pids)
        return Busy(
            f"cannot lock {_what(name)}: {f'process {who}' if who else 'another process'} works on it",
            hint="try again when that is done",
        )


def refusal(what: str, error: OSError) -> ApplyError:
    """No lock could be had, for another reason than that somebody has it."""
    return ApplyError(
        f"cannot lock {what}: {error.strerror}",
        hint="locks are files below .virt: its file system must be writable and have room",
    )


def _what(name: str) -> str:
    return "the folder of all trees" if name.startswith(".") else name


class Lock:
    """One taking of a lock, for a `with`."""

    __slots__ = ("_locks", "_name", "_shared", "_wait")

    def __init__(
        self, locks: Locks, name: str, *, shared: bool = False, wait: bool = False
    ) -> None:
        self._locks = locks
        self._name = name
        self._shared = shared
        self._wait = wait

    def __enter__(self) -> None:
        self._locks.take(self._name, shared=self._shared, wait=self._wait)

    def __exit__(self, *_: object) -> None:
        self._locks.free(self._name)


def acquire(dir_fd: int, name: str, *, shared: bool = False, wait: bool = False) -> int:
    """The descriptor of the locked file; closing it frees the lock. Raises BlockingIOError."""
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
        try:
            fcntl.flock(fd, operation if wait else operation | fcntl.LOCK_NB)
            # Who held it may have unlinked it before letting go: then this is a lock on nothing.
            if _is_linked(fd, dir_fd, name):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_linked(fd: int, dir_fd: int, name: str) -> bool:
    try:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)
