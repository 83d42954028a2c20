"""Reads which ids of a host are somebody's: its accounts, and the ranges of subuid(5) and subgid(5)."""

from collections.abc import Iterator

from virttools.host import accounts
from virttools.host.sysroot import Sysroot
from virttools.tree.ranges import Held, Known, common_to_all

RESERVED = "virttools"
"""Whose entry in both files keeps ids for domains: useradd(8) then gives them to nobody."""

_FILES = ("/etc/subuid", "/etc/subgid")


def read(sysroot: Sysroot) -> Known:
    """No NSS: who has accounts elsewhere keeps their numbers out by hand, or by RESERVED."""
    rows = [(path, *row) for path in _FILES for row in _rows(sysroot, path)]
    found = accounts.read(sysroot)
    people = [
        Held(range(number, number + 1), f"{name}'s, by {path}")
        for path, named in (("/etc/passwd", found.users), ("/etc/group", found.groups))
        for number, name in named
    ]
    lent = [Held(ids, f"{name}'s, by {path}") for path, name, ids in rows if name != RESERVED]
    own = [[ids for file, name, ids in rows if (file, name) == (path, RESERVED)] for path in _FILES]
    return Known((*people, *lent), common_to_all(*own))


def _rows(sysroot: Sysroot, path: str) -> Iterator[tuple[str, range]]:
    for line in (sysroot.read(path) or b"").decode(errors="replace").splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and all(word.isascii() and word.isdigit() for word in fields[1:]):
            start, count = int(fields[1]), int(fields[2])
            yield fields[0], range(start, start + count)
