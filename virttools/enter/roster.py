"""Reads what the picker shows of each domain: only the first line of a record, never a tree."""

import os
import stat

from virttools.enter.listing import Row
from virttools.errors import VirtError

_LONGEST = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def rows(root: str, trees: "tuple[str, ...]", times: "dict[str, float]") -> "tuple[Row, ...]":
    """A row for each tree, and for each record that lost its tree; sorted by name.

    times: the last use by name, in seconds since 1970.
    """
    files = _recorded(f"{root}/.virt/records")
    found = []
    for name in sorted({*trees, *files}):
        row = Row(name, used=times.get(name))
        _read(row, f"{root}/.virt/records", files.get(name))
        if name not in trees:
            row.health = "tree gone"
        elif not _is_safe(f"{root}/{name}"):
            row.health = "others may write"
        found.append(row)
    return tuple(found)


def _recorded(records: str) -> "dict[str, str]":
    """The files of records by domain; a long name has no room for the suffix."""
    try:
        files = os.listdir(records)
    except OSError:
        return {}
    return {file.removesuffix("~").removesuffix(".json"): file for file in files if file[0] != "."}


def _read(row: Row, records: str, file: "str | None") -> None:
    from virttools.tree.record import head

    if file is None:
        row.health = "no record"
        return
    try:
        with open(os.open(f"{records}/{file}", _READ), "rb") as stream:
            found = head(stream.readline(_LONGEST), row.domain)
    except (OSError, VirtError):
        row.health = "record damaged"
        return
    row.addresses = ", ".join(found.addresses)
    row.profiles = ", ".join(found.profiles)


def _is_safe(tree: str) -> bool:
    """Whether the folder is ours (root's, mostly) and no one else can write it, as entering will ask."""
    try:
        found = os.lstat(tree)
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    )
