"""Doer: an image as a plain folder: the items of a tree, with owners, modes, links, nodes and attributes."""

import os
import stat
from collections.abc import Sequence
from errno import EINVAL, EPERM

from virttools.errors import ApplyError, NeedsPrivilege
from virttools.image import walk
from virttools.image.items import Item
from virttools.scrub.findings import printable

_BLOCK = 1 << 20


def write(
    target_fd: int,
    tree_fd: int,
    items: Sequence[Item],
    advance: walk.Advance = lambda _: None,
) -> None:
    """Fill an empty folder of ours. Raises NeedsPrivilege where owners or nodes cannot be made, Busy, ApplyError."""
    for item in items:
        try:
            _make(target_fd, tree_fd, item)
        except OSError as error:
            raise _refusal(item, error) from error
        advance(item.size)
    # Modes of folders come last: one may forbid to write into it; so do times, which writing changes.
    for item in reversed(items):
        if item.type == "directory":
            _finish(target_fd, item)


def _make(target_fd: int, tree_fd: int, item: Item) -> None:
    match item.type:
        case "directory":
            if item.path:
                os.mkdir(item.path, 0o700, dir_fd=target_fd)
            return
        case "symlink":
            os.symlink(item.target or "", item.path, dir_fd=target_fd)
        case "file" if item.link is not None:
            os.link(
                item.link,
                item.path,
                src_dir_fd=target_fd,
                dst_dir_fd=target_fd,
                follow_symlinks=False,
            )
            return
        case "file":
            _copy(target_fd, tree_fd, item)
        case "fifo":
            os.mkfifo(item.path, 0o600, dir_fd=target_fd)
        case _:
            assert item.device is not None, item.type
            letter, major, minor = item.device
            kind = stat.S_IFBLK if letter == "b" else stat.S_IFCHR
            os.mknod(item.path, kind | 0o600, os.makedev(major, minor), dir_fd=target_fd)
    _finish(target_fd, item)


def _copy(target_fd: int, tree_fd: int, item: Item) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(item.path, flags, 0o600, dir_fd=target_fd), "wb") as target:
        target.writelines(walk.content(tree_fd, item, memoryview(bytearray(_BLOCK))))


def _finish(target_fd: int, item: Item) -> None:
    path = item.path or "."
    os.chown(path, item.uid, item.gid, dir_fd=target_fd, follow_symlinks=False)
    # A change of owner takes capabilities and set-id bits away (chown(2)): they come after it.
    if item.type != "symlink":
        os.chmod(path, item.mode, dir_fd=target_fd)
    for name, value in item.xattrs:
        os.setxattr(f"/proc/self/fd/{target_fd}/{path}", name, value, follow_symlinks=False)
    moment = item.mtime * 10**9
    os.utime(path, ns=(moment, moment), dir_fd=target_fd, follow_symlinks=False)


def _refusal(item: Item, error: OSError) -> ApplyError | NeedsPrivilege:
    if error.errno in (EPERM, EINVAL):  # EINVAL: an id that the user namespace does not map
        return NeedsPrivilege(
            f"cannot make /{printable(item.path)}: {error.strerror}",
            hint="only root can give files away and make device nodes: take --format tar or oci",
        )
    return ApplyError(f"cannot make /{printable(item.path)}: {error.strerror}")
