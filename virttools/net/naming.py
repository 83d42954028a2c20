"""Values: the names of domains and of their services, as hosts(5) and zones (RFC 1035) tell them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from virttools.manifest.model import Manifest

_PORTS = {"www": (80, 443), "mail": (25,), "ftp": (21,)}


@dataclass(frozen=True, slots=True)
class Named:
    """A domain; services: the addresses of each service that has a name, by its first label."""

    domain: str
    addresses: tuple[str, ...]
    services: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Host:
    """A line of hosts(5)."""

    address: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """An address record of a zone; name: relative to the zone, or "@" for its own."""

    name: str
    type: str
    address: str


def named(domain: str, manifest: Manifest) -> Named:
    """What a domain declares to answer on the ports of www, mail and ftp, by whom ever."""
    found: dict[str, tuple[str, ...]] = {}
    for label, ports in _PORTS.items():
        addresses = dict.fromkeys(_answering(manifest, ports))
        if addresses:
            found[label] = tuple(addresses)
    return Named(domain, manifest.addresses, found)


def _answering(manifest: Manifest, ports: Sequence[int]) -> Iterator[str]:
    for service in manifest.services:
        if service.port in ports and service.protocol == "tcp":
            yield from service.bind or manifest.addresses
    for daemon in manifest.daemons:
        if not set(ports).isdisjoint(daemon.ports):
            yield from manifest.addresses


def hosts(found: Sequence[Named]) -> tuple[Host, ...]:
    """A line for each address. A name that is a domain itself is that domain's only."""
    domains = {one.domain for one in found}
    names: dict[str, list[str]] = {}
    for one in found:
        for address in one.addresses:
            names.setdefault(address, []).append(one.domain)
        for label, addresses in one.services.items():
            name = f"{label}.{one.domain}"
            for address in addresses if name not in domains else ():
                names.setdefault(address, []).append(name)
    return tuple(Host(address, tuple(listed)) for address, listed in names.items())


def rows(one: Named, found: Sequence[Named], nameserver: str) -> tuple[Row, ...]:
    """The address records of a domain's zone, with that of its nameserver where it lies inside."""
    domains = {other.domain: other.addresses for other in found}
    names = {"@": one.addresses, **one.services}
    for label in one.services:
        names[label] = domains.get(f"{label}.{one.domain}") or names[label]
    server = relative(nameserver, one.domain)
    if server is not None:
        names.setdefault(server, domains.get(nameserver) or one.addresses)
    return tuple(
        Row(name, "AAAA" if ":" in address else "A", address)
        for name, addresses in names.items()
        for address in addresses
    )


def relative(name: str, domain: str) -> str | None:
    """The name as a zone has it without a dot at the end; None: it lies outside."""
    if name == domain:
        return "@"
    return name.removesuffix(f".{domain}") if name.endswith(f".{domain}") else None
