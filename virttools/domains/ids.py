"""Ids of a domain's own (`uid_base`): chosen where that is `auto`, and told where they are others' too."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from virttools.domains.wish import Wish
from virttools.enter import userns
from virttools.errors import Busy, HostLacks, UnknownDomain
from virttools.host import idranges
from virttools.host.sysroot import Sysroot
from virttools.tree import chosen, ids, kept, ranges
from virttools.tree.chosen import Holding
from virttools.tree.ranges import POOLS, SPAN, Held, Known
from virttools.tree.root import Root, open_root


def settle(root: Root, holding: Holding, wishes: Sequence[Wish]) -> list[Wish]:
    """The wishes with their ids chosen, which no other process is given while `holding` lasts.

    Raises HostLacks where none are left, Busy where another process is about to give the same away.
    """
    if not any(wish.is_open or wish.uid_base for wish in wishes):
        return list(wishes)
    for wish in wishes:
        if wish.uid_base and not holding.take(ranges.of(wish.uid_base)):
            raise Busy(
                f"cannot give the ids from {wish.uid_base} on to {wish.domain}: "
                "another process is creating a domain with some of them",
                hint='uid_base = "auto" takes free ones',
            )
    with root.lock_all():
        remembered = chosen.read(root)
        found = _choose(root, wishes, remembered, holding.take)
        if found:
            chosen.write(root, remembered | found)
    return _with(wishes, found)


def foresee(root_path: str, wishes: Sequence[Wish]) -> list[Wish]:
    """The same, when nobody else creates one meanwhile; nothing is taken."""
    if not any(wish.is_open for wish in wishes):
        return list(wishes)
    try:
        with open_root(root_path) as root:
            found = _choose(root, wishes, chosen.read(root), lambda _: True)
    except UnknownDomain:
        found = _choose(None, wishes, {}, lambda _: True)
    return _with(wishes, found)


def shared(root: Root | None, wishes: Sequence[Wish]) -> dict[str, str]:
    """By domain, what is to be said of ids that are somebody else's on this machine, too."""
    if not any(wish.uid_base for wish in wishes):
        return {}
    held, aside = _known().held, _kept(root)
    found = {}
    for wish in wishes:
        others = [*held, *(one for name, one in aside if name != wish.domain)]
        if said := ranges.told(wish.domain, wish.uid_base, others):
            found[wish.domain] = f'{said}: uid_base = "auto" takes free ones'
    return found


def _kept(root: Root | None) -> list[tuple[str, Held]]:
    """The ids of trees that were set aside, each with the domain that may have them again."""
    found = {} if root is None else kept.heads(root)
    return [
        (head.domain, Held(ranges.of(head.uid_base), f"those of {path}"))
        for path, head in found.items()
        if head.uid_base
    ]


def _with(wishes: Sequence[Wish], found: Mapping[str, int]) -> list[Wish]:
    return [wish.with_uid_base(found[wish.domain]) if wish.is_open else wish for wish in wishes]


def _choose(
    root: Root | None,
    wishes: Sequence[Wish],
    remembered: Mapping[str, int],
    take: Callable[[range], bool],
) -> dict[str, int]:
    """A range for each wish that needs one."""
    names = [wish.domain for wish in wishes if wish.is_open]
    if not names:
        return {}
    known = _known()
    heads = () if root is None else root.heads()
    choice = _Choice(
        [
            *(ranges.of(head.uid_base) for head in heads if head.uid_base),
            *(ranges.of(wish.uid_base) for wish in wishes if wish.uid_base),
            *(held.ids for held in known.held),
        ],
        [(name, one.ids) for name, one in _kept(root)],
        remembered,
        _pools(known),
        take,
    )
    return {name: choice.base(name) for name in names}


class _Choice:
    """Gives one domain after the other its range."""

    def __init__(
        self,
        held: Iterable[range],
        aside: Sequence[tuple[str, range]],
        remembered: Mapping[str, int],
        pools: Sequence[range],
        take: Callable[[range], bool],
    ) -> None:
        self._held = list(held)
        self._aside = aside
        self._remembered = remembered
        self._pools = pools
        self._take = take

    def base(self, domain: str) -> int:
        """Its own of before, else one that was nobody's before, else the lowest that is free."""
        aside = [ids for name, ids in self._aside if name != domain]
        before = self._remembered.get(domain)
        if before is not None:
            inside = ranges.common_to_all([ranges.of(before)], self._pools)
            base = self._first(aside, inside)
            if base is not None:
                return base
        for avoided in ([ranges.of(base) for base in self._remembered.values()], []):
            base = self._first([*aside, *avoided], self._pools)
            if base is not None:
                return base
        raise self._refusal(domain)

    def _first(self, avoided: Sequence[range], pools: Sequence[range]) -> int | None:
        while (base := ranges.pick((*self._held, *avoided), pools)) is not None:
            self._held.append(ranges.of(base))  # ours now, or another process's
            if self._take(ranges.of(base)):
                return base
        return None

    @staticmethod
    def _refusal(domain: str) -> HostLacks:
        if os.geteuid() == 0:
            hint = (
                f"entries of `{idranges.RESERVED}` in /etc/subuid and /etc/subgid may leave more of them,"
                " or those who run this container"
            )
        else:
            hint = "ask root for more of them in /etc/subuid and /etc/subgid"
        return HostLacks(
            f"cannot choose ids for {domain}: no {SPAN} that belong together are free here",
            hint=f"{hint}; without uid_base a domain shares the numbers of others",
        )


def _known() -> Known:
    """In a user namespace of their own an ordinary user shares ids with nobody but their other domains."""
    return idranges.read(Sysroot("/")) if os.geteuid() == 0 else Known()


def _pools(known: Known) -> tuple[range, ...]:
    here = userns.run(lambda: ids.here().in_both())
    return ranges.common_to_all(POOLS, *([known.reserved] if known.reserved else []), here)
