"""Values: ranges of ids, each for one domain: which is free, and with whom one would be shared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SPAN = 65536
"""How many ids a tree with a `uid_base` owns, from there on; user namespaces are cut likewise."""

POOLS = (range(1 << 20, 1 << 31), range(SPAN, 1 << 20))
"""Where ranges are chosen, best first.

useradd(8) gives subordinate ids from 100000 on, the lowest first, and asks nobody: the first million
is left to it while there is room. From 2^31 on some programs take an id for a negative number.
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Ids that are somebody's. holder: who that is, and what says so, in words."""

    ids: range
    holder: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a host says of its ids. reserved: kept for domains, by an entry of ours in subuid(5) and subgid(5)."""

    held: tuple[Held, ...] = ()
    reserved: tuple[range, ...] = ()


def of(base: int) -> range:
    """The ids of a domain with that `uid_base`."""
    return range(base, base + SPAN)


def pick(held: Iterable[range], pools: Sequence[range] = POOLS) -> int | None:
    """The lowest multiple of SPAN, in the first pool that has one, from which SPAN ids are held by nobody."""
    taken = sorted((ids for ids in held if ids), key=lambda ids: ids.start)
    for pool in pools:
        base = _upwards(pool.start)
        for ids in taken:
            if ids.start >= base + SPAN:
                break
            base = max(base, _upwards(ids.stop))
        if base + SPAN <= pool.stop:
            return base
    return None


def _upwards(number: int) -> int:
    return -(-number // SPAN) * SPAN


def told(domain: str, base: int, held: Iterable[Held]) -> str:
    """That ids of a domain are somebody else's too, or ""."""
    own = of(base)
    found = [one.holder for one in held if base and common(one.ids, own)]
    if not found:
        return ""
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"ids of {domain} ({own.start} to {own.stop - 1}) are {found[0]}{more}, too"


def common(one: range, other: range) -> range:
    """The ids that are in both."""
    return range(max(one.start, other.start), min(one.stop, other.stop))


def common_to_all(*several: Sequence[range]) -> tuple[range, ...]:
    """What is in some range of each of the sequences, in the order of the first."""
    found: tuple[range, ...] = tuple(several[0])
    for more in several[1:]:
        found = tuple(both for one in found for other in more if (both := common(one, other)))
    return found
