"""Doer: addresses of interfaces, through netlink: seen, added with our mark, removed.

The mark is IFA_PROTO (Linux 5.18), where the kernel keeps who added an address: IPv6 has no labels.
"""

import errno
import ipaddress
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from virttools.errors import ApplyError, ConfigError, DomainExists, HostLacks, NeedsPrivilege
from virttools.net import arp
from virttools.net.alias import Alias, Held

MARK = 0x76
"""Of the numbers that no rt_addrprotos of iproute2 has: "v"."""

_TENTATIVE, _DAD_FAILED = 0x40, 0x08
_UP, _NO_ARP, _CARRIER = 0x1, 0x80, 0x10000
_ETHERNET = 1
_PATIENCE = 10.0
_PAUSE = 0.05


class Interfaces:
    """The interfaces of this network namespace, by an open netlink socket."""

    def __init__(self, ip: Any) -> None:  # noqa: ANN401  pyroute2 is loaded where it is needed
        self._ip = ip

    def held(self) -> tuple[Held, ...]:
        links = {link["index"]: link for link in self._ip.get_links()}
        return tuple(
            _held(found, links[found["index"]])
            for found in self._ip.get_addr()
            if found["index"] in links
        )

    def names(self) -> tuple[str, ...]:
        return tuple(str(link.get_attr("IFLA_IFNAME")) for link in self._ip.get_links())

    def default(self) -> str | None:
        """The interface of the default route with the best metric; IPv4's comes first."""
        routes = [route for route in self._ip.get_default_routes() if route.get_attr("RTA_OIF")]
        if not routes:
            return None
        best = min(routes, key=lambda it: (it["family"] != 2, it.get_attr("RTA_PRIORITY") or 0))
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in self._ip.get_links()}
        return str(names[best.get_attr("RTA_OIF")])

    def require(self, name: str) -> None:
        """Raises ConfigError where there is no such interface, or it is down."""
        links = {link.get_attr("IFLA_IFNAME"): link for link in self._ip.get_links()}
        if name not in links:
            raise ConfigError(
                f"cannot put addresses on {name}: there is no such interface",
                hint=f"--interface, or interface in virt.toml, names one of: {', '.join(links)}",
            )
        if not links[name]["flags"] & _UP:
            raise ConfigError(
                f"cannot put addresses on {name}: the interface is down",
                hint=f"ip link set {name} up",
            )

    def station(self, name: str) -> bytes | None:
        """The hardware address by which an interface speaks ARP; None where it does not, or has no carrier."""
        for link in self._ip.get_links():
            flags = link["flags"]
            is_it = link.get_attr("IFLA_IFNAME") == name and link["ifi_type"] == _ETHERNET
            if is_it and flags & _CARRIER and not flags & _NO_ARP:
                return bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
        return None

    def duplicates(self, aliases: Sequence[Alias]) -> dict[Alias, DomainExists]:
        """Those IPv4 addresses, all for one interface, that another machine of its network has."""
        asked = [alias for alias in aliases if ":" not in alias.address]
        station = self.station(asked[0].interface) if asked else None
        if station is None:
            return {}
        found = arp.elsewhere(asked[0].interface, station, asked)
        return {alias: _elsewhere(alias, who) for alias, who in found.items()}

    def announce(self, aliases: Sequence[Alias]) -> None:
        told = [alias for alias in aliases if ":" not in alias.address]
        station = self.station(told[0].interface) if told else None
        if station is not None:
            arp.announce(told[0].interface, station, told)

    def add(self, alias: Alias) -> None:
        """Add an address with our mark. Raises DomainExists where this or another machine has it."""
        try:
            self._change("add", alias, proto=MARK)
        except _KernelError as error:
            raise _refusal("put", alias, error.number) from error
        found = self._find(alias)
        if found is not None and not found.is_marked:
            self.remove(alias)
            raise HostLacks(
                f"cannot put {alias}: this kernel does not keep who added an address",
                hint="Linux 5.18 or later does",
            )

    def remove(self, alias: Alias) -> None:
        try:
            self._change("del", alias)
        except _KernelError as error:
            if error.number not in (errno.EADDRNOTAVAIL, errno.ENODEV):  # gone already
                raise _refusal("remove", alias, error.number) from error

    def settle(self, alias: Alias) -> None:
        """Wait until IPv6's search for duplicates has ended; a duplicate is taken away again."""
        end = time.monotonic() + _PATIENCE
        while (found := self._find(alias)) is not None and time.monotonic() < end:
            if found.is_duplicate:
                self.remove(alias)
                raise _elsewhere(alias)
            if not found.is_tentative:
                return
            time.sleep(_PAUSE)

    def _find(self, alias: Alias) -> Held | None:
        return next((one for one in self.held() if one.alias == alias), None)

    def _change(self, verb: str, alias: Alias, **more: int) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            (index,) = self._ip.link_lookup(ifname=alias.interface) or (0,)
            self._ip.addr(verb, index=index, address=alias.address, prefixlen=alias.prefix, **more)
        except NetlinkError as error:
            raise _KernelError(int(error.code)) from error


@contextmanager
def interfaces() -> Iterator[Interfaces]:
    """The interfaces, for a `with`."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        yield Interfaces(ip)


class _KernelError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _held(found: Any, link: Any) -> Held:  # noqa: ANN401  messages of netlink
    # Of a point-to-point interface IFA_ADDRESS is the other end's.
    address = found.get_attr("IFA_LOCAL") or found.get_attr("IFA_ADDRESS")
    flags = found.get_attr("IFA_FLAGS") or found["flags"]
    name = str(link.get_attr("IFLA_IFNAME"))
    return Held(
        Alias(str(ipaddress.ip_address(address)), found["prefixlen"], name),
        is_marked=found.get_attr("IFA_PROTO") == MARK,
        is_up=bool(link["flags"] & _UP),
        is_tentative=bool(flags & _TENTATIVE),
        is_duplicate=bool(flags & _DAD_FAILED),
    )


def _refusal(verb: str, alias: Alias, number: int) -> Exception:
    if number in (errno.EPERM, errno.EACCES) and ":" in alias.address and verb == "put":
        return NeedsPrivilege(
            f"cannot {verb} {alias}: not permitted, or IPv6 is off there",
            hint=f"run it as root, with CAP_NET_ADMIN; see sysctl net.ipv6.conf.{alias.interface}.disable_ipv6",
        )
    if number in (errno.EPERM, errno.EACCES):
        return NeedsPrivilege(
            f"cannot {verb} {alias}: it needs CAP_NET_ADMIN",
            hint="run it as root, outside of a container",
        )
    if number == errno.EEXIST:
        return DomainExists(
            f"cannot {verb} {alias}: the interface has that address already",
            hint="run it again: somebody else added it at this moment",
        )
    import os

    return ApplyError(f"cannot {verb} {alias}: {os.strerror(number)}")


def _elsewhere(alias: Alias, who: str = "duplicate address detected") -> DomainExists:
    return DomainExists(
        f"cannot put {alias}: another machine of that network has it ({who})",
        hint="give the domain another address, or take it off the other machine, and run it again",
    )
