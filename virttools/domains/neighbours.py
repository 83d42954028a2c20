"""The other domains of this machine: their names and addresses, which no tree but their own may hold."""

import socket
from collections.abc import Sequence
from typing import Protocol

from virttools.errors import DomainExists, UnknownDomain
from virttools.scrub.findings import Context
from virttools.tree.root import Root, open_root


class Named(Protocol):
    """Something with a domain's name and the addresses that it is to have."""

    @property
    def domain(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...


class Neighbours:
    """Every domain known, with its addresses; tells each one who the others are."""

    def __init__(self, addresses: dict[str, tuple[str, ...]]) -> None:
        self._own = addresses
        self._names = tuple(addresses)
        self._addresses = tuple(one for its in addresses.values() for one in its)
        fqdn = socket.gethostname()
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


def refuse_taken_addresses(root: Root, wishes: Sequence[Named]) -> None:
    """No address belongs to two domains. Raises DomainExists naming the one that has it."""
    if not any(wish.addresses for wish in wishes):
        return
    holders = {
        address: name for name, addresses in root.addresses().items() for address in addresses
    }
    for wish in wishes:
        for address in wish.addresses:
            holder = holders.setdefault(address, wish.domain)
            if holder != wish.domain:
                raise DomainExists(
                    f"cannot give {address} to {wish.domain}: {holder} has it",
                    hint=f"choose another address, or look with `virt show {holder}`",
                )
