"""Reader: items as they are meant, where a tree could not hold them: owners and device nodes by its record."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from virttools.image.items import Item
from virttools.tree.ids import STAND_IN, Ids
from virttools.tree.record import Entry


def items(found: Sequence[Item], entries: Iterable[Entry], can: Ids) -> tuple[Item, ...]:
    """What was found in a tree that was made with no more ids than `can`, with what stands in it undone.

    As fakeroot(1) does it, but by what the build wrote down. What a tenant changed stays as it is.
    """
    if can.is_whole:
        return tuple(found)
    meant = {entry.path[1:]: entry for entry in entries}
    return tuple(
        _meant(item, meant[item.path], can) if item.path in meant else item for item in found
    )


def _meant(item: Item, entry: Entry, can: Ids) -> Item:
    if (item.uid, item.gid) != can.held(entry.uid, entry.gid):
        return item
    owned = replace(item, uid=entry.uid, gid=entry.gid)
    if entry.device is None or (item.type, item.size, item.mode) != ("file", 0, STAND_IN):
        return owned
    return replace(
        owned, type="device", mode=entry.mode, sha256=None, device=entry.device, xattrs=()
    )
