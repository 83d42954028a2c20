"""Doer: the ranges of ids that domains of this root were given: remembered, and held while one is built.

Remembered in .virt/uids.json, so that a domain which is made again gets its own back. Held by the kernel, as
locks of open files on the bytes of one file, which are the ids: a crash frees them.
"""

import fcntl
import json
import os
import struct
from collections.abc import Mapping
from errno import EACCES, EAGAIN, ENOENT

from virttools.errors import ApplyError
from virttools.tree.rewrite import open_virt, rewrite
from virttools.tree.root import Root

FILE = "uids.json"
_RANGES = "ranges"
_LOCK = ".uids"
# struct flock: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = "hhqqi"


class Holding:
    """The ids that this process, and what it forks, holds until the end of a `with`."""

    __slots__ = ("_fd", "_locks_fd")

    def __init__(self, root: Root) -> None:
        self._locks_fd = root.locks_fd
        self._fd = -1

    def __enter__(self) -> "Holding":  # noqa: PYI034  as the root does
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def take(self, ids: range) -> bool:
        """Whether no other process holds one of them; then they are ours. Raises ApplyError."""
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, ids.start, len(ids), 0)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if self._fd < 0:
                self._fd = os.open(_LOCK, flags, 0o600, dir_fd=self._locks_fd)
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno in (EACCES, EAGAIN):
                return False
            raise ApplyError(f"cannot lock .virt/locks/{_LOCK}: {error.strerror}") from error
        return True


def read(root: Root) -> dict[str, int]:
    """Where the range of each domain begins, of gone ones too. Raises ApplyError where that is damaged."""
    folder_fd = open_virt(root)
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # a fifo would wait
        fd = os.open(FILE, flags, dir_fd=folder_fd)
        with open(fd, "rb") as file:
            return {str(name): int(base) for name, base in json.load(file)[_RANGES].items()}
    except OSError as error:
        if error.errno == ENOENT:
            return {}
        raise ApplyError(f"cannot read .virt/{FILE}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApplyError(
            f"cannot read .virt/{FILE}: it is damaged ({error!r})",
            hint="remove it: the records of the domains say who has which ids",
        ) from error
    finally:
        os.close(folder_fd)


def write(root: Root, bases: Mapping[str, int]) -> None:
    """Who calls holds `lock_all`. Raises ApplyError."""
    text = json.dumps({_RANGES: bases}, indent=0, sort_keys=True) + "\n"
    try:
        rewrite(root, FILE, text.encode())
    except OSError as error:
        raise ApplyError(f"cannot write .virt/{FILE}: {error.strerror}") from error
