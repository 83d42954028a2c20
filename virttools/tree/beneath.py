"""Doer: opens, reads, writes and walks below a tree that others may have filled (DESIGN 7.1).

No link, fifo, device or mount planted there leads out of it or stops us.
Light enough for the fast ways: no dataclasses, pathlib, typing.
"""

import os
import stat
from collections.abc import Iterator
from errno import EACCES, EFBIG, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE, EXDEV

from virttools import linux

_BENEATH = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_MAGICLINKS
_IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS


def open_beneath(dir_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a canonical path below dir_fd, for writing: no link on the way is followed.

    Raises OSError: ELOOP where it meets a link, EXDEV where it would leave dir_fd.
    """
    return linux.openat2(dir_fd, path, flags, _BENEATH, mode)


def open_in_root(dir_fd: int, path: str, flags: int) -> int:
    """Open what path means to somebody whose root is dir_fd, for reading and looking things up."""
    return linux.openat2(dir_fd, path, flags, _IN_ROOT)


def open_regular(dir_fd: int, path: str) -> int:
    """Open a regular file for reading, as seen from inside. Raises OSError; EINVAL if it is none.

    The inode is looked at before it is opened: opening a device acts, opening a fifo waits.
    """
    seen_fd = open_in_root(dir_fd, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(seen_fd).st_mode):
            raise OSError(EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{seen_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(seen_fd)


def read_file(dir_fd: int, path: str, limit: int) -> bytes:
    """The content of a regular file of at most limit bytes. Raises OSError; EFBIG beyond it."""
    fd = open_regular(dir_fd, path)
    try:
        parts = []
        room = limit + 1
        while room > 0 and (part := os.read(fd, min(room, 1 << 20))):
            parts.append(part)
            room -= len(part)
    finally:
        os.close(fd)
    if room <= 0:
        raise OSError(EFBIG, f"larger than {limit} bytes", path)
    return b"".join(parts)


def replace_file(  # noqa: PLR0917  the order of open(2) and chown(2), which all callers know
    dir_fd: int, path: str, data: bytes, mode: int, uid: int, gid: int
) -> None:
    """Put a new file at a canonical path by rename; what held the name, a link too, just loses it.

    Created 0600, then owned, then given its mode; synced. Raises OSError.
    """
    parent_fd, name = _open_parent(dir_fd, path)
    temporary = f".{os.urandom(12).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=parent_fd)
        try:
            _fill(fd, data, mode, uid, gid)
            os.rename(temporary, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        except BaseException:
            os.unlink(temporary, dir_fd=parent_fd)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(parent_fd)


def _fill(fd: int, data: bytes, mode: int, uid: int, gid: int) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fchown(fd, uid, gid)
    os.fchmod(fd, mode)
    os.fsync(fd)


def unlink(dir_fd: int, path: str) -> None:
    """Remove a name that is no directory; its folders must be real ones. Raises OSError."""
    parent_fd, name = _open_parent(dir_fd, path)
    try:
        os.unlink(name, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def _open_parent(dir_fd: int, path: str) -> tuple[int, str]:
    parent, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(EINVAL, "not the name of a file", path)
    return open_beneath(dir_fd, parent or ".", os.O_PATH | os.O_DIRECTORY), name


class Ladder:
    """One descriptor that climbs down and up a hostile tree of any depth: one mount, no links.

    Upwards it goes by "..", and checks device and inode: a folder moved meanwhile is noticed.
    """

    __slots__ = ("_above", "fd")

    def __init__(self, dir_fd: int) -> None:
        self.fd = linux.openat2(dir_fd, ".", os.O_RDONLY | os.O_DIRECTORY, _BENEATH)
        self._above: list[tuple[int, int]] = []

    def down(self, name: str) -> None:
        """Enter the folder `name`. Raises OSError: EXDEV where something is mounted there."""
        fd = linux.openat2(
            self.fd, name, os.O_RDONLY | os.O_DIRECTORY, _BENEATH | linux.RESOLVE_NO_XDEV
        )
        self._above.append(_identity(self.fd))
        self._swap(fd)

    def up(self) -> None:
        """Go back to the folder above. Raises OSError ESTALE where that is another one now."""
        self._swap(os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd))
        if _identity(self.fd) != self._above.pop():
            raise OSError(ESTALE, "a folder was moved meanwhile")

    def close(self) -> None:
        os.close(self.fd)

    def _swap(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


MOST_KEPT = 512 << 20
"""Characters of all paths of a tree that are kept at once; 10 000 folders in each other have 10 GB of them."""


def walk(dir_fd: int, most: int | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Every name below dir_fd as (relative path, lstat): folders first, names in order.

    A mount point is told (as what is mounted there) and not entered, nor is a folder that may not
    be read. What vanishes meanwhile is left out. Raises OSError ESTALE where a folder is moved,
    ENAMETOOLONG where all paths together have more than `most` characters.
    """
    ladder = Ladder(dir_fd)
    try:
        parts: list[str] = []
        pending = [_names(ladder.fd)]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    ladder.up()
                    parts.pop()
                continue
            name = pending[-1].pop()
            try:
                found = os.lstat(name, dir_fd=ladder.fd)
            except FileNotFoundError:
                continue
            path = "/".join((*parts, name))
            if most is not None:
                most -= len(path)
                if most < 0:
                    raise OSError(ENAMETOOLONG, os.strerror(ENAMETOOLONG), f"{path[:100]}…")
            yield path, found
            if stat.S_ISDIR(found.st_mode) and _entered(ladder, name):
                parts.append(name)
                pending.append(_names(ladder.fd))
    finally:
        ladder.close()


def _names(fd: int) -> list[str]:
    return sorted(os.listdir(fd), reverse=True)


def _entered(ladder: Ladder, name: str) -> bool:
    try:
        ladder.down(name)
    except OSError as error:
        if error.errno in (EXDEV, ELOOP, ENOENT, ENOTDIR, EACCES):
            return False
        raise
    return True
