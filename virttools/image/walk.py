"""Reader: the items of a tree, contents and all, through descriptors. The tree may be hostile, and living."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from errno import EAGAIN, ENODATA, ENOTSUP, ESTALE, EXDEV

from virttools.errors import ApplyError, Busy
from virttools.image.items import Item, is_kept_xattr, is_wanted, ordered
from virttools.scrub import reach
from virttools.scrub.findings import printable
from virttools.tree import beneath

_BLOCK = 1 << 20
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "fifo",
}
_CHANGED = reach.CHANGED | {EAGAIN, ENODATA, ESTALE}

Advance = Callable[[int], None]
"""Told how many more bytes were read."""


def items(tree_fd: int, advance: Advance = lambda _: None) -> tuple[Item, ...]:
    """Everything of a tree that belongs into an image.

    Every file is read whole, on all cores, so that equal items mean equal bytes.
    Raises ApplyError for what cannot be read, Busy where the tree changes meanwhile or holds a mount.
    """
    found: list[Item] = []
    inodes: dict[tuple[int, int], str] = {}
    opened: list[tuple[int, os.stat_result]] = []
    for path, status in _below(tree_fd):
        kind = _TYPES[stat.S_IFMT(status.st_mode)]
        if not is_wanted(path, kind):
            continue
        item = _item(path, status)
        if kind == "symlink":
            item = replace(item, target=_target(tree_fd, path))
        elif kind == "file" and status.st_nlink > 1:
            item = replace(item, link=inodes.setdefault((status.st_dev, status.st_ino), path))
        if kind == "directory" or (kind == "file" and item.link in (None, path)):
            opened.append((len(found), status))
        found.append(item)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        read = pool.map(lambda one: _read(tree_fd, found[one[0]], one[1], advance), opened)
        for (index, _), item in zip(opened, read, strict=True):
            found[index] = item
    return ordered(_same_inode(found))


def sha1s(tree_fd: int, found: Sequence[Item]) -> dict[str, str]:
    """The SHA-1 (hex) of every file, by its path, for documents that ask for it. Raises as `items`."""
    files = [item for item in found if item.type == "file"]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        digests = pool.map(lambda item: _sha1(tree_fd, item), files)
        return dict(zip((item.path for item in files), digests, strict=True))


def _sha1(tree_fd: int, item: Item) -> str:
    with regular(tree_fd, item.path) as fd, open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


@contextmanager
def regular(tree_fd: int, path: str) -> Iterator[int]:
    """The regular file of an item, for reading, for a `with`. Raises Busy where it is none any more, ApplyError."""
    try:
        with reach.regular(tree_fd, path, os.O_RDONLY | os.O_NONBLOCK) as fd:
            yield fd
    except OSError as error:
        raise _refusal(path, error) from error


def content(tree_fd: int, item: Item, buffer: memoryview) -> Iterator[memoryview]:
    """What is in a file, piece by piece; a piece lies in `buffer`, until the next is asked for.

    Raises ApplyError, and Busy, at the end at the latest, where it is not what the item says.
    What goes wrong with a piece where it is used is no error of reading.
    """
    digest, left = hashlib.sha256(), item.size
    with regular(tree_fd, item.path) as fd:
        while left and (count := os.readv(fd, [buffer[:left]])):
            digest.update(buffer[:count])
            left -= count
            yield buffer[:count]
        is_whole = not left and not os.read(fd, 1)
    if not is_whole or digest.hexdigest() != item.sha256:
        raise changed(item.path)


def _below(tree_fd: int) -> Iterator[tuple[str, os.stat_result]]:
    yield "", os.fstat(tree_fd)
    try:
        yield from beneath.walk(tree_fd, beneath.MOST_KEPT)
    except OSError as error:
        raise _refusal(error.filename or "", error) from error


def _item(path: str, status: os.stat_result) -> Item:
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    device = None
    if kind == "device":
        letter = "b" if stat.S_ISBLK(status.st_mode) else "c"
        device = (letter, os.major(status.st_rdev), os.minor(status.st_rdev))
    return Item(
        path=path,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=max(0, status.st_mtime_ns // 10**9),
        device=device,
    )


def _target(tree_fd: int, path: str) -> str:
    try:
        with reach.parent(tree_fd, path) as (parent_fd, name):
            return os.readlink(name, dir_fd=parent_fd)
    except OSError as error:
        raise _refusal(path, error) from error


def _read(tree_fd: int, item: Item, seen: os.stat_result, advance: Advance) -> Item:
    """The item with what only an open file tells: content and extended attributes."""
    if item.type == "directory":
        return _read_directory(tree_fd, item)
    with regular(tree_fd, item.path) as fd:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (seen.st_dev, seen.st_ino):
            raise changed(item.path)
        _refuse_hole(fd, status, item.path)
        digest, left = hashlib.sha256(), status.st_size
        while left and (block := os.read(fd, min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
        if left or os.read(fd, 1):  # it shrank, or grows while we read
            raise changed(item.path)
        advance(status.st_size)
        return replace(item, size=status.st_size, sha256=digest.hexdigest(), xattrs=_xattrs(fd))


def _refuse_hole(fd: int, status: os.stat_result, path: str) -> None:
    """A tenant makes a file of terabytes at no cost: to read its zeros would take us hours."""
    disk = os.fstatvfs(fd)
    whole = disk.f_blocks * disk.f_frsize
    if 0 < whole < status.st_size and status.st_blocks * 512 < status.st_size // 2:
        raise ApplyError(
            f"cannot read /{printable(path)}: it says {status.st_size} bytes, more than its disk has",
            hint="it is mostly a hole: look who made it, and remove or truncate it",
        )


def _read_directory(tree_fd: int, item: Item) -> Item:
    """Opened for reading: one that may not be read was not walked, and would be empty in silence."""
    try:
        with reach.opened(tree_fd, item.path, os.O_RDONLY | os.O_DIRECTORY) as fd:
            return replace(item, xattrs=_xattrs(fd))
    except OSError as error:
        raise _refusal(item.path, error) from error


def _xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    try:
        names = sorted(os.listxattr(fd))
    except OSError as error:
        if error.errno == ENOTSUP:
            return ()
        raise
    return tuple((name, os.getxattr(fd, name)) for name in names if is_kept_xattr(name))


def _same_inode(found: list[Item]) -> list[Item]:
    """Second names get what was read through the first."""
    first = {item.path: item for item in found if item.link == item.path}
    return [
        replace(first[item.link], path=item.path) if item.link in first else item for item in found
    ]


def changed(path: str) -> Busy:
    """What to say where a path is not what it was a moment ago."""
    return Busy(
        f"cannot put /{printable(path)} into an image: it changed meanwhile",
        hint="try again when nobody writes there, or build from the manifest: virt image -m FILE",
    )


def _refusal(path: str, error: OSError) -> ApplyError | Busy:
    if error.errno == EXDEV:
        return Busy(
            f"cannot put /{printable(path)} into an image: something is mounted there",
            hint="unmount it, or build from the manifest: virt image -m FILE",
        )
    if error.errno in _CHANGED:
        return changed(path)
    return ApplyError(f"cannot read /{printable(path)}: {error.strerror}")
