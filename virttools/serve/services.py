"""Values: the services that domains declare, as routes files of virtuald and as entries of super-servers."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from virttools.errors import Problem
from virttools.manifest.model import Daemon, Isolation, Manifest, Origin, Service
from virttools.serve.messages import lasting

MARK = "# Written by `virt services sync`; what is changed here is lost."
_NOWHERE = Origin("", 0)


@dataclass(frozen=True, slots=True)
class Declared:
    """A service of one domain; addresses: those it answers on."""

    domain: str
    service: Service
    addresses: tuple[str, ...]

    def port(self) -> str:
        """Port and protocol as in services(5), or how often it is run."""
        service = self.service
        if service.port:
            return f"{service.port}/{service.protocol}"
        return f"every {lasting(service.every or 0)}"


@dataclass(frozen=True, slots=True)
class Resident:
    """A daemon of one domain."""

    domain: str
    daemon: Daemon


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a super-server: a service of some domains alike, on one address or (None) on all."""

    service: Service
    domains: tuple[str, ...]
    addresses: tuple[str, ...]
    address: str | None
    conf: str

    @property
    def id(self) -> str:
        """A name of its own among entries."""
        name = f"{self.service.name}-{self.service.port}"
        return name if self.address is None else f"{name}-{self.address}"


def declared(domain: str, manifest: Manifest) -> tuple[Declared, ...]:
    """The services of one domain."""
    return tuple(
        Declared(domain, service, service.bind or manifest.addresses)
        for service in manifest.services
    )


def residents(domain: str, manifest: Manifest) -> tuple[Resident, ...]:
    """The daemons of one domain."""
    return tuple(Resident(domain, daemon) for daemon in manifest.daemons)


def problems(found: Iterable[Declared]) -> tuple[Problem, ...]:
    """What keeps a declared service from being served."""
    return tuple(
        Problem(
            one.service.origin.file,
            one.service.origin.line,
            f"{one.service.name} of {one.domain} is served to nobody: the domain has no addresses",
        )
        for one in found
        if one.service.port is not None and not one.addresses
    )


def routes(found: Iterable[Declared], root: str) -> dict[str, str]:
    """The routes files `conf.NAME` with what they say: one for each service that answers connections."""
    files = {}
    for name, group in _grouped(found, lambda one: one.service.name):
        listed = [one for one in group if one.service.port is not None and one.addresses]
        is_plain = len({one.service.port for one in listed}) == 1
        lines = [
            f"{_place(address, None if is_plain else one.service.port)} {root}/{one.domain}"
            for one in listed
            for address in one.addresses
        ]
        if lines:
            files[f"conf.{name}"] = "\n".join([MARK, *dict.fromkeys(lines), ""])
    return files


def entries(
    found: Iterable[Declared], root: str, daemons: Iterable[Resident] = ()
) -> tuple[Entry, ...]:
    """The entries for a super-server: domains alike share one, which virtuald tells apart.

    A program that is given the socket itself, services of one port that differ, a port where a
    daemon answers too, and IPv6 have one for each address: what comes to it is of one domain.
    """
    apart = {port for one in daemons for port in one.daemon.ports}
    made: list[Entry] = []
    listed = [one for one in found if one.service.port is not None and one.addresses]
    for _, group in _grouped(listed, lambda one: one.port()):
        kinds = {_kind(one.service) for one in group}
        one = group[0].service
        has_six = any(":" in address for each in group for address in each.addresses)
        is_apart = one.is_waiting or bool(one.bind) or one.port in apart
        if len(kinds) == 1 and not is_apart and not has_six:
            made.append(_entry(group, None, root))
        else:
            made += [
                _entry([replace(each, addresses=(address,))], address, root)
                for each in group
                for address in each.addresses
            ]
    return tuple(made)


def periodic(found: Iterable[Declared]) -> tuple[Declared, ...]:
    """Those that are run every so often."""
    return tuple(one for one in found if one.service.every is not None)


def _entry(group: Sequence[Declared], address: str | None, root: str) -> Entry:
    service = group[0].service
    addresses = tuple(sorted({address for one in group for address in one.addresses}))
    domains = tuple(sorted({one.domain for one in group}))
    return Entry(service, domains, addresses, address, f"{root}/conf.{service.name}")


def _kind(service: Service) -> Service:
    """What two services must have in common to be one entry."""
    return replace(service, origin=_NOWHERE)


def _grouped(
    found: Iterable[Declared], key: Callable[[Declared], str]
) -> Iterator[tuple[str, list[Declared]]]:
    for name, group in itertools.groupby(sorted(found, key=key), key):
        yield name, sorted(group, key=lambda one: one.domain)


def _place(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# ---- what a super-server cannot say

_REFUSED = {
    "inetd": ("only_from", "no_access", "access_times", "proxy_protocol"),
    "xinetd": ("proxy_protocol",),
    "systemd": ("access_times", "proxy_protocol"),
}
_LEFT_OUT = {
    "inetd": (
        "groups", "backlog", "instances", "per_source", "log_on_success", "log_on_failure", "banner",
        "timeout", "nice", "rlimits", "zygote",
    ),
    "xinetd": ("groups", "backlog", "banner", "timeout", "zygote"),
    "systemd": ("groups", "cps", "log_on_success", "log_on_failure", "banner", "zygote"),
}  # fmt: skip
XINETD_LIMITS = ("as", "cpu", "data", "files", "rss", "stack")
_UNSET = Service("", 1, "tcp", "root", "", (), Isolation.NAMESPACE, None, _NOWHERE)


def refused(kind: str, found: Iterable[Entry]) -> tuple[Problem, ...]:
    """What a super-server cannot do and must not pass over: without it more clients would be served."""
    return tuple(
        Problem(
            entry.service.origin.file,
            entry.service.origin.line,
            f"{kind} has no way to say {name} of {entry.service.name}",
        )
        for entry in found
        for name in _unsaid(kind, entry.service)
    )


def _unsaid(kind: str, service: Service) -> list[str]:
    names = [name for name in _REFUSED[kind] if getattr(service, name)]
    if kind == "systemd" and service.only_from and service.no_access:
        names.append("only_from and no_access at once")  # systemd lets what is in both in
    return names


def left_out(kind: str, service: Service) -> tuple[str, ...]:
    """Options that a super-server does without, to be said in a comment."""
    names = [name for name in _LEFT_OUT[kind] if getattr(service, name) != getattr(_UNSET, name)]
    if kind == "xinetd":
        limits = [one.resource for one in service.rlimits if one.resource not in XINETD_LIMITS]
        names += [f"rlimits {name}" for name in limits]
    return tuple(names)


def words(entry: Entry) -> tuple[str, ...]:
    """The arguments of virtuald for an entry."""
    service = entry.service
    user = () if service.user == "root" else ("-u", service.user)
    way = ("--chroot",) if service.isolation is Isolation.CHROOT else ()
    return (*user, *way, entry.conf, service.program, *service.args)
