"""The other domains of this machine: their names and addresses, which no tree but their own may hold."""

import os
from collections.abc import Sequence
from typing import Protocol

from virttools.errors import DomainExists, UnknownDomain
from virttools.scrub.findings import Context
from virttools.tree.ranges import SPAN
from virttools.tree.record import Head
from virttools.tree.root import Root, open_root


class Named(Protocol):
    """Something with a domain's name and the addresses that it is to have."""

    @property
    def domain(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...
    @property
    def uid_base(self) -> int: ...


class Neighbours:
    """Every domain known, with its addresses; tells each one who the others are."""

    def __init__(self, addresses: dict[str, tuple[str, ...]]) -> None:
        self._own = addresses
        self._names = tuple(addresses)
        self._addresses = tuple(one for its in addresses.values() for one in its)
        fqdn = os.uname().nodename
        # A bare word is nobody's secret.
        self._host_names = (fqdn,) if "." in fqdn else ()

    def context(self, domain: str, kept_hashes: frozenset[str]) -> Context:
        """All domains get the same tuples: what belongs to itself never counts as another's."""
        return Context(
            domain=domain,
            other_names=self._names,
            other_addresses=self._addresses,
            own_addresses=self._own.get(domain, ()),
            host_names=self._host_names,
            kept_hashes=kept_hashes,
        )


def look(root_path: str, wishes: Sequence[Named]) -> Neighbours:
    """The domains under a root, and those about to be created there."""
    known: dict[str, tuple[str, ...]] = {}
    try:
        with open_root(root_path) as root:
            known = root.addresses()
    except UnknownDomain:
        pass
    known.update((wish.domain, wish.addresses) for wish in wishes)
    return Neighbours(known)


def refuse_taken(root: Root, wishes: Sequence[Named]) -> None:
    """No address and no id belongs to two domains. Raises DomainExists naming the one that has it."""
    if not any(wish.addresses or wish.uid_base for wish in wishes):
        return
    heads = root.heads()
    _refuse_taken_addresses(heads, wishes)
    _refuse_taken_ids(heads, wishes)


def _refuse_taken_addresses(heads: Sequence[Head], wishes: Sequence[Named]) -> None:
    holders = {address: head.domain for head in heads for address in head.addresses}
    for wish in wishes:
        for address in wish.addresses:
            holder = holders.setdefault(address, wish.domain)
            if holder != wish.domain:
                raise DomainExists(
                    f"cannot give {address} to {wish.domain}: {holder} has it",
                    hint=f"choose another address, or look with `virt show {holder}`",
                )


def _refuse_taken_ids(heads: Sequence[Head], wishes: Sequence[Named]) -> None:
    """Ranges of `uid_base` are SPAN wide; 0 means that a domain does not ask for ids of its own."""
    held = [(head.uid_base, head.domain) for head in heads if head.uid_base]
    for wish in wishes:
        if not wish.uid_base:
            continue
        for base, holder in held:
            if holder != wish.domain and abs(base - wish.uid_base) < SPAN:
                raise DomainExists(
                    f"cannot give the ids from {wish.uid_base} on to {wish.domain}: "
                    f"{holder} has those from {base} on, and each domain has {SPAN}",
                    hint='uid_base = "auto" takes free ones',
                )
        held.append((wish.uid_base, wish.domain))
