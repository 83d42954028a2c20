"""Values: which addresses are to be put on an interface, and which are to be taken away again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Alias:
    """An address as an interface is to have it."""

    address: str
    prefix: int
    interface: str

    @property
    def bits(self) -> str:
        return f"{self.address}/{self.prefix}"

    def __str__(self) -> str:
        return f"{self.bits} on {self.interface}"


@dataclass(frozen=True, slots=True)
class Held:
    """An address that an interface has.

    is_marked: it bears the mark of virttools. is_up: its interface is.
    is_duplicate: another machine of the network answered for it, so the kernel does not use it.
    """

    alias: Alias
    is_marked: bool
    is_up: bool = True
    is_tentative: bool = False
    is_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """kept: (address, where): those that are on an interface and that we did not put there."""

    remove: tuple[Alias, ...]
    add: tuple[Alias, ...]
    kept: tuple[Alias, ...]

    def __bool__(self) -> bool:
        return bool(self.remove or self.add)

    def __str__(self) -> str:
        taken = [f"remove {alias}" for alias in self.remove]
        return "\n".join([*taken, *(f"add {alias}" for alias in self.add)])


def default_prefix(address: str) -> int:
    """One address and no network: its route is that of the address the interface has already."""
    return 128 if ":" in address else 32


def is_ours(one: Held, claimed: frozenset[str]) -> bool:
    """Both must say so: the kernel's mark, which ends with the address, and the root's own list."""
    return one.is_marked and one.alias.address in claimed


def changes(wanted: Mapping[str, Alias], held: Sequence[Held], claimed: frozenset[str]) -> Changes:
    """What makes the interfaces have every address wanted, and none of ours that is not."""
    ours = [one for one in held if is_ours(one, claimed)]
    right = {one.alias for one in ours if wanted.get(one.alias.address) == one.alias}
    stale = [one.alias for one in ours if one.alias not in right]
    ours_set = {one.alias for one in ours}
    foreign = {one.alias.address: one.alias for one in held if one.alias not in ours_set}
    missing = [
        alias for alias in wanted.values() if alias not in right and alias.address not in foreign
    ]
    kept = [foreign[address] for address in wanted if address in foreign]
    return Changes(tuple(sorted(stale)), tuple(missing), tuple(kept))
