"""Values: whether a domain's dev/log is the socket that it should be, and somebody listens."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a domain's dev/log is. Only FRESH is good; REPLACED: something else lies there."""

    FRESH = "fresh"
    STALE = "stale"
    UNHEARD = "nobody listening"
    MISSING = "missing"
    APART = "other file system"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Node:
    """One inode, by device and number; is_socket: it is one."""

    device: int
    inode: int
    is_socket: bool

    def is_same(self, other: "Node") -> bool:
        return (self.device, self.inode) == (other.device, other.inode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies at a domain's dev/log. link: None where nothing does; cause: why it cannot be a socket's name.

    source: the socket it should be, None where that is not there; device: that of the folder dev.
    """

    link: Node | None = None
    source: Node | None = None
    device: int | None = None
    is_heard: bool = False
    cause: str | None = None


def judge(found: Found) -> State:
    """The state that follows from what was found."""
    link, source = found.link, found.source
    if found.cause is not None:
        return State.REPLACED
    if link is not None and (source is None or link.is_same(source)):
        return State.FRESH if found.is_heard else State.UNHEARD
    if source is not None and found.device is not None and found.device != source.device:
        return State.APART
    return State.MISSING if link is None else State.STALE
