"""Values: how two trees differ, path by path, whatever they were read from."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from virttools.image.items import Item

_WORDS = {"sha256": "content", "uid": "owner", "gid": "group", "link": "hard link"}
"""What a person calls a part of an item, where that is not its name."""


class Change(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that is not the same in both: in one of them only, or with other parts (names of an Item)."""

    path: str
    before: Item | None
    after: Item | None
    parts: tuple[str, ...] = ()

    @property
    def change(self) -> Change:
        if self.before is None:
            return Change.ADDED
        return Change.REMOVED if self.after is None else Change.CHANGED

    def told(self) -> str:
        """What is not the same, for a person: "content, mode 0644 -> 0600"."""
        if self.before is None or self.after is None:
            return (self.before or self.after or _NOTHING).type
        return ", ".join(_told(part, self.before, self.after) for part in self.parts)


_NOTHING = Item(path="", type="nothing", mode=0, uid=0, gid=0)


def between(
    before: Iterable[Item], after: Iterable[Item], *, times: bool = True
) -> tuple[Difference, ...]:
    """All differences, by the bytes of their paths. times: whether a time of its own makes a path another."""
    old, new = ({item.path: item for item in items} for items in (before, after))
    found = []
    for path in sorted(
        old.keys() | new.keys(), key=lambda one: one.encode(errors="surrogateescape")
    ):
        one, other = old.get(path), new.get(path)
        parts = _parts(one, other, times=times) if one and other else ()
        if one is None or other is None or parts:
            found.append(Difference(path, one, other, parts))
    return tuple(found)


def _parts(one: Item, other: Item, *, times: bool) -> tuple[str, ...]:
    if not times:
        other = replace(other, mtime=one.mtime)
    if one == other:
        return ()
    if one.type != other.type:
        return ("type",)
    names = [name for name in Item.__slots__ if getattr(one, name) != getattr(other, name)]
    if "sha256" in names and "size" in names:
        names.remove("size")  # another content says it
    return tuple(names)


def _told(part: str, one: Item, other: Item) -> str:
    word = _WORDS.get(part, part)
    old, new = getattr(one, part), getattr(other, part)
    match part:
        case "mode":
            return f"mode {old:04o} -> {new:04o}"
        case "type" | "uid" | "gid" | "target":
            return f"{word} {old} -> {new}"
        case _:
            return word
