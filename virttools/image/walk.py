"""Reader: the items of a tree, contents and all, through descriptors. The tree may be hostile, and living."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from errno import EAGAIN, ELOOP, ENOENT, ENOTDIR, EXDEV

from virttools.errors import ApplyError, Busy
from virttools.image.items import Item, is_kept_xattr, is_wanted, ordered
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

Advance = Callable[[int], None]
"""Told how many more bytes were read."""


def items(tree_fd: int, epoch: int, advance: Advance = lambda _: None) -> tuple[Item, ...]:
    """Everything of a tree that belongs into an image. epoch: no time is later, in seconds since 1970.

    Every file is read whole, on all cores, so that equal items mean equal bytes.
    Raises ApplyError for what cannot be read, Busy where the tree changes meanwhile.
    """
    try:
        found = [_item("", os.fstat(tree_fd), epoch)]
        inodes: dict[tuple[int, int], str] = {}
        files: list[tuple[int, os.stat_result]] = []
        for path, status in beneath.walk(tree_fd):
            kind = _TYPES[stat.S_IFMT(status.st_mode)]
            if not is_wanted(path, kind):
                continue
            item = _item(path, status, epoch)
            if kind == "symlink":
                item = replace(item, target=_target(tree_fd, path))
            elif kind == "file" and status.st_nlink > 1:
                first = inodes.setdefault((status.st_dev, status.st_ino), path)
                item = replace(item, link=first)
            if kind == "directory" or (kind == "file" and item.link in (None, path)):
                files.append((len(found), status))
            found.append(item)
    except OSError as error:
        raise _refusal("the tree", error) from error
    threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        read = pool.map(lambda it: _read(tree_fd, found[it[0]], it[1], advance), files)
        for (index, _), item in zip(files, read, strict=True):
            found[index] = item
    return ordered(_same_inode(found))


def sha1s(tree_fd: int, found: Sequence[Item]) -> dict[str, str]:
    """The SHA-1 (hex) of every file, by its path, for documents that ask for it. Raises as `items`."""
    files = [item for item in found if item.type == "file"]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        digests = pool.map(lambda item: _sha1(tree_fd, item), files)
        return dict(zip((item.path for item in files), digests, strict=True))


def _sha1(tree_fd: int, item: Item) -> str:
    with open(open_file(tree_fd, item.path), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def open_file(tree_fd: int, path: str) -> int:
    """A file of an item, for reading. Raises Busy where it is no regular file any more."""
    try:
        seen_fd = beneath.open_beneath(tree_fd, path, os.O_PATH)
        try:
            if not stat.S_ISREG(os.fstat(seen_fd).st_mode):
                raise _changed(path)
            return os.open(f"/proc/self/fd/{seen_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(seen_fd)
    except OSError as error:
        raise _refusal(path, error) from error


def _item(path: str, status: os.stat_result, epoch: int) -> Item:
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
        mtime=max(0, min(int(status.st_mtime), epoch)),
        device=device,
    )


def _target(tree_fd: int, path: str) -> str:
    link_fd = beneath.open_beneath(tree_fd, path.rpartition("/")[0] or ".", os.O_PATH)
    try:
        return os.readlink(path.rpartition("/")[2], dir_fd=link_fd)
    finally:
        os.close(link_fd)


def _read(tree_fd: int, item: Item, seen: os.stat_result, advance: Advance) -> Item:
    """The item with what only an open file tells: content and extended attributes."""
    if item.type == "directory":
        return replace(item, xattrs=_directory_xattrs(tree_fd, item.path))
    fd = open_file(tree_fd, item.path)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (seen.st_dev, seen.st_ino):
            raise _changed(item.path)
        digest, size = hashlib.sha256(), 0
        while block := os.read(fd, _BLOCK):
            digest.update(block)
            size += len(block)
        advance(size)
        return replace(item, size=size, sha256=digest.hexdigest(), xattrs=_xattrs(fd))
    except OSError as error:
        raise _refusal(item.path, error) from error
    finally:
        os.close(fd)


def _directory_xattrs(tree_fd: int, path: str) -> tuple[tuple[str, bytes], ...]:
    try:
        fd = beneath.open_beneath(tree_fd, path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        return _xattrs(fd)
    finally:
        os.close(fd)


def _xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    try:
        names = sorted(os.listxattr(fd))
    except OSError:  # a file system without them
        return ()
    return tuple((name, os.getxattr(fd, name)) for name in names if is_kept_xattr(name))


def _same_inode(found: list[Item]) -> list[Item]:
    """Second names get what was read through the first."""
    first = {item.path: item for item in found if item.link == item.path}
    return [
        replace(first[item.link], path=item.path) if item.link in first else item for item in found
    ]


def _changed(path: str) -> Busy:
    return Busy(
        f"cannot put /{path} into an image: it changed meanwhile",
        hint="try again when nobody writes there, or build from the manifest: virt image -m FILE",
    )


def _refusal(path: str, error: OSError) -> ApplyError | Busy:
    if error.errno in (EAGAIN, ELOOP, ENOENT, ENOTDIR, EXDEV):
        return _changed(path)
    return ApplyError(f"cannot read /{path}: {error.strerror}")
