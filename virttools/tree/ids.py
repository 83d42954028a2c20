"""Reader: which owners this process can give to files: all of them, or those that its user namespace maps.

Light enough for the fast ways.
"""

import os

_WHOLE = 2**32 - 1

STAND_IN = 0
"""The mode of the empty file that stands in a tree where nobody but root could make a device node."""


class Ids:
    """What can be held. is_whole: every id, and device nodes too, as root of the machine can."""

    __slots__ = ("_gid", "_gids", "_uid", "_uids", "is_whole")

    def __init__(self, own: "tuple[int, int]", uids: "list[range]", gids: "list[range]") -> None:
        """own: whom files go to whose owner cannot be held."""
        self._uid, self._gid = own
        self._uids = uids
        self._gids = gids
        self.is_whole = all(_is_whole(ids) for ids in (uids, gids))

    def held(self, uid: int, gid: int) -> "tuple[int, int]":
        """The owner and group that a file for uid and gid gets here."""
        return (
            uid if self.has_uid(uid) else self._uid,
            gid if self.has_gid(gid) else self._gid,
        )

    def has_uid(self, uid: int) -> bool:
        return any(uid in ids for ids in self._uids)

    def has_gid(self, gid: int) -> bool:
        return any(gid in ids for ids in self._gids)

    def in_both(self) -> "list[range]":
        """The ids that users and groups both have."""
        return [
            range(max(one.start, other.start), min(one.stop, other.stop))
            for one in self._uids
            for other in self._gids
        ]

    def has_one_group(self) -> bool:
        return sum(map(len, self._gids)) == 1


def here() -> Ids:
    """Those of this process, by user_namespaces(7); an ordinary user outside of one holds one of each."""
    own = (os.geteuid(), os.getegid())
    if own[0] != 0:
        return Ids(own, [range(own[0], own[0] + 1)], [range(own[1], own[1] + 1)])
    return Ids(own, _mapped("/proc/self/uid_map"), _mapped("/proc/self/gid_map"))


def _mapped(path: str) -> "list[range]":
    """The inner ids, those side by side as one; all of them where the kernel has no user namespaces."""
    try:
        with open(path, "rb", buffering=0) as file:
            rows = [line.split() for line in file.read().splitlines()]
    except FileNotFoundError:
        return [range(_WHOLE)]
    found: list[range] = []
    for first, count in sorted((int(row[0]), int(row[2])) for row in rows):
        if found and found[-1].stop == first:
            found[-1] = range(found[-1].start, first + count)
        else:
            found.append(range(first, first + count))
    return found


def _is_whole(ids: "list[range]") -> bool:
    return sum(map(len, ids)) == _WHOLE
