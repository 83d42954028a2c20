"""Reads back what a tree holds now, after something other than the plan changed it."""

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import replace

from virttools.tree import beneath, ids
from virttools.tree.record import Entry

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "fifo",
}


def again(tree_fd: int, entries: tuple[Entry, ...], paths: Iterable[str]) -> tuple[Entry, ...]:
    """The entries with those at `paths` (absolute in the tree) read anew; what is gone is left out."""
    touched = set(paths)
    can = ids.here()
    return tuple(
        now
        for entry in entries
        if (now := _read(tree_fd, entry, can) if entry.path in touched else entry) is not None
    )


def whole(tree_fd: int, entries: tuple[Entry, ...], *, rule: str, origin: str) -> tuple[Entry, ...]:
    """Every path of the tree: known entries kept where they still hold, others under `rule` and `origin`."""
    known = {entry.path: entry for entry in entries}
    can = ids.here()
    found = []
    for path, status in beneath.walk(tree_fd):
        new = Entry(path=f"/{path}", type="", mode=0, uid=0, gid=0, rule=rule, origin=origin)
        old = known.get(new.path, new)
        found.append(old if _same(old, status, can) else _read(tree_fd, old, can))
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.path))


def _same(entry: Entry, status: os.stat_result, can: ids.Ids) -> bool:
    """Whether only a file's content could have changed; contents of files are always read anew."""
    return (
        entry.type == _TYPES.get(stat.S_IFMT(status.st_mode))
        and entry.type != "file"
        and entry.mode == stat.S_IMODE(status.st_mode)
        and (entry.uid, entry.gid) == _owner(entry, status, can)
        and entry.type != "symlink"
    )


def _read(tree_fd: int, entry: Entry, can: ids.Ids) -> Entry | None:
    path = entry.path.lstrip("/")
    try:
        status = os.stat(path, dir_fd=tree_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if _is_stand_in(entry, status, can):
        return entry
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    uid, gid = _owner(entry, status, can)
    now = replace(entry, type=kind, mode=stat.S_IMODE(status.st_mode), uid=uid, gid=gid)
    match kind:
        case "symlink":
            return replace(now, target=os.readlink(path, dir_fd=tree_fd))
        case "device":
            letter = "b" if stat.S_ISBLK(status.st_mode) else "c"
            number = status.st_rdev
            return replace(now, device=(letter, os.major(number), os.minor(number)))
        case "file":
            return _file(tree_fd, path, now, status)
        case _:
            return now


def _owner(entry: Entry, status: os.stat_result, can: ids.Ids) -> tuple[int, int]:
    """Whose it is; who is meant, where a user namespace has no such id and somebody stands in."""
    found = (status.st_uid, status.st_gid)
    meant = (entry.uid, entry.gid)
    return meant if found == can.held(*meant) else found


def _is_stand_in(entry: Entry, status: os.stat_result, can: ids.Ids) -> bool:
    is_file = entry.type == "device" and stat.S_ISREG(status.st_mode)
    is_empty = stat.S_IMODE(status.st_mode) == ids.STAND_IN and status.st_size == 0
    return is_file and is_empty and not can.is_whole


def _file(tree_fd: int, path: str, entry: Entry, status: os.stat_result) -> Entry:
    fd = beneath.open_beneath(tree_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    is_as_built = sha256 == entry.sha256
    return replace(
        entry,
        size=status.st_size,
        sha256=sha256,
        link=entry.link if is_as_built else None,
        shared=entry.shared and is_as_built,
    )
