"""Opens paths of any length below a tree that others may change: past no link, into no mount."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV

from virttools import linux

_RESOLVE = (
    linux.RESOLVE_BENEATH
    | linux.RESOLVE_NO_SYMLINKS
    | linux.RESOLVE_NO_MAGICLINKS
    | linux.RESOLVE_NO_XDEV
)
_STEP = 15
"""Folders per openat2 of a long path: 15 names of NAME_MAX bytes stay below PATH_MAX (limits.h)."""
_PATH_MAX = 4095

CHANGED = frozenset((EINVAL, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV))
"""What openat2 says where a path is no longer, or no longer is the kind of thing that it was."""


@contextmanager
def opened(tree_fd: int, path: str, flags: int) -> Iterator[int]:
    """A descriptor of `path`, relative to the tree. Raises OSError; see CHANGED."""
    fd = _open(tree_fd, path or ".", flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def parent(tree_fd: int, path: str) -> Iterator[tuple[int, str]]:
    """The folder that holds `path`, and its name there: what the *at() calls take."""
    folder, _, name = path.rpartition("/")
    with opened(tree_fd, folder, os.O_PATH | os.O_DIRECTORY) as fd:
        yield fd, name


@contextmanager
def regular(tree_fd: int, path: str, flags: int) -> Iterator[int]:
    """A descriptor of a regular file, opened with `flags`. Raises OSError EINVAL where it is none.

    It is looked at before it is opened: opening a device acts, opening a fifo waits.
    """
    with opened(tree_fd, path, os.O_PATH) as seen_fd:
        if not stat.S_ISREG(os.fstat(seen_fd).st_mode):
            raise OSError(EINVAL, "not a regular file", path)
        fd = os.open(f"/proc/self/fd/{seen_fd}", flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _open(tree_fd: int, path: str, flags: int) -> int:
    if len(os.fsencode(path)) <= _PATH_MAX:
        return linux.openat2(tree_fd, path, flags, _RESOLVE)
    names = path.split("/")
    fd = os.dup(tree_fd)
    for at in range(0, len(names) - 1, _STEP):
        step = "/".join(names[at : min(at + _STEP, len(names) - 1)])
        fd = _onwards(fd, step, os.O_PATH | os.O_DIRECTORY)
    return _onwards(fd, names[-1], flags)


def _onwards(fd: int, path: str, flags: int) -> int:
    try:
        return linux.openat2(fd, path, flags, _RESOLVE)
    finally:
        os.close(fd)
