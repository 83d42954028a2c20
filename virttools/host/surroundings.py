"""Reads what a host knows of its surroundings: its time zone and its name servers."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from virttools.host.sysroot import Sysroot

ZONES = "/usr/share/zoneinfo"
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_RESOLV = "/etc/resolv.conf"
# Where systemd-resolved keeps the real servers behind its stub on 127.0.0.53 (systemd-resolved(8)).
_BEHIND_STUB = "/run/systemd/resolve/resolv.conf"


@dataclass(frozen=True, slots=True)
class NameService:
    """nameservers: addresses, in order. search: domains, in order."""

    nameservers: tuple[str, ...]
    search: tuple[str, ...]


def is_zone(name: str) -> bool:
    return _ZONE.fullmatch(name) is not None


def timezone(sysroot: Sysroot) -> str:
    """The host's zone: where /etc/localtime points, else what /etc/timezone says, else UTC."""
    for link in sysroot.walk("/etc/localtime").chain:
        _, found, zone = sysroot.target(link).partition("/zoneinfo/")
        if found and is_zone(zone):
            return zone
    text = (sysroot.read("/etc/timezone") or b"").decode(errors="replace").strip()
    return text if is_zone(text) else "UTC"


def name_service(sysroot: Sysroot) -> NameService:
    """What resolv.conf says; where that is only a local stub, what stands behind it."""
    found = _parse(sysroot.read(_RESOLV) or b"")
    if found.nameservers and all(map(_is_loopback, found.nameservers)):
        behind = _parse(sysroot.read(_BEHIND_STUB) or b"")
        return NameService(behind.nameservers or found.nameservers, behind.search or found.search)
    return found


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


def _parse(text: bytes) -> NameService:
    """resolv.conf(5): of several `search` and `domain` lines the last one holds."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.decode(errors="replace").splitlines():
        match re.split(r"[#;]", line, maxsplit=1)[0].split():
            case ["nameserver", address, *_] if _is_address(address):
                servers.append(address)
            case ["search" | "domain", *names]:
                search = tuple(names)
            case _:
                pass
    return NameService(tuple(servers), search)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
