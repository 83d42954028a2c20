"""Layers to one Manifest: later ones add to lists and override scalars, an empty list resets."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from virttools.errors import ManifestError, Problem
from virttools.manifest import keys
from virttools.manifest.forms import nearest
from virttools.manifest.keys import OPERATIONS, PROFILES, Section
from virttools.manifest.model import Daemon, Group, Manifest, Origin, Probe, Scrub, Service, User
from virttools.manifest.names import quoted
from virttools.manifest.parse import Entries, Item, ParsedLayer, count

ROOT = "root"  # every tree has this account and its group


def merge(layers: Sequence[ParsedLayer]) -> Manifest:
    """Merge layers, lowest first.

    Raises ManifestError with every problem that only the whole shows: unknown groups and members,
    a uid, gid or port that two layers give away.
    """
    whole = reduce(join, layers, ParsedLayer())
    problems = conflicts(whole)
    if problems:
        raise ManifestError(f"cannot use the merged manifest: {count(problems)}", problems=problems)
    return _manifest(whole)


def join(lower: ParsedLayer, upper: ParsedLayer) -> ParsedLayer:
    """Two layers as one. Associative, with the empty layer as neutral element."""
    scalars = dict(lower.scalars) | dict(upper.scalars)
    lists = dict(lower.lists)
    for key, entries in upper.lists:
        before = lists.get(key)
        # profiles tell what was included, and that cannot be taken back
        forgets = entries.resets and key != PROFILES
        if before is None or forgets:
            lists[key] = entries
        else:
            lists[key] = Entries(before.resets, _add(before.items, entries.items))
    return ParsedLayer.of(scalars, lists)


def _add(lower: tuple[Item, ...], upper: tuple[Item, ...]) -> tuple[Item, ...]:
    """What upper names again is replaced in place."""
    items = {item.identity: item for item in lower} | {item.identity: item for item in upper}
    return tuple(items.values())


def conflicts(whole: ParsedLayer) -> tuple[Problem, ...]:
    """What is wrong between items that stand in different places, by file and line."""
    users: list[User] = [item.value for item in whole.items("users")]
    groups: list[Group] = [item.value for item in whole.items("groups")]
    services: list[Service] = [item.value for item in whole.items("services")]
    daemons: list[Daemon] = [item.value for item in whole.items("daemons")]
    ports = [(_port(it), it.name, it.origin) for it in services]
    ports += [(f"{port}/tcp", it.name, it.origin) for it in daemons for port in it.ports]
    found = [
        *_unknown_groups(users, groups),
        *_unknown_members(users, groups),
        *_shared("uid", [(user.uid, user.name, user.origin) for user in users]),
        *_shared("gid", [(group.gid, group.name, group.origin) for group in groups]),
        *_shared("port", ports),
        *_namesakes(services, daemons),
        *_untold_services(
            {it.name: (it.port,) for it in services} | {it.name: it.ports for it in daemons},
            [item.value for item in whole.items("probes")],
        ),
        *_foreign_addresses(services, [item.value for item in whole.items("addresses")]),
    ]
    return tuple(sorted(found, key=lambda problem: (problem.file, problem.line)))


def _unknown_groups(users: Sequence[User], groups: Sequence[Group]) -> list[Problem]:
    own = [user.name for user in users if user.group is None]
    known = list(dict.fromkeys([ROOT, *(group.name for group in groups), *own]))
    return [
        _undeclared(user.origin, f"user {quoted(user.name)} is in the group", name, known)
        for user in users
        for name in dict.fromkeys([*([user.group] if user.group else []), *user.groups])
        if name not in known
    ]


def _unknown_members(users: Sequence[User], groups: Sequence[Group]) -> list[Problem]:
    known = list(dict.fromkeys([ROOT, *(user.name for user in users)]))
    return [
        _undeclared(group.origin, f"group {quoted(group.name)} has the member", name, known)
        for group in groups
        for name in group.members
        if name not in known
    ]


def _untold_services(
    known: Mapping[str, tuple[int | None, ...]], probes: Sequence[Probe]
) -> list[Problem]:
    """A probe's service, and its port, which only a daemon has more than one of. known: ports by name."""
    found = []
    for probe in probes:
        if probe.service not in known:
            names = [*known] or ["none"]
            what = "a probe tries the service"
            found.append(_undeclared(probe.origin, what, probe.service, names))
        elif probe.port is not None and probe.port not in known[probe.service]:
            said = f"a probe tries the port {probe.port} of {quoted(probe.service)}, allowed: "
            said += ", ".join(str(port) for port in known[probe.service] if port) or "none"
            found.append(Problem(probe.origin.file, probe.origin.line, said))
    return found


def _foreign_addresses(services: Sequence[Service], addresses: list[str]) -> list[Problem]:
    """What services bind to must be an address of the domain; its routes lead to this tree only."""
    return [
        _undeclared(
            it.origin, f"service {quoted(it.name)} binds to", address, addresses or ["none"]
        )
        for it in services
        for address in it.bind
        if address not in addresses
    ]


def _namesakes(services: Sequence[Service], daemons: Sequence[Daemon]) -> list[Problem]:
    """Who asks for one by its name must not get the other."""
    places = {service.name: service.origin for service in services}
    return [
        Problem(
            it.origin.file,
            it.origin.line,
            f"daemon {quoted(it.name)} has the name of a service ({places[it.name]}),"
            " allowed: one of its own",
        )
        for it in daemons
        if it.name in places
    ]


def _undeclared(origin: Origin, what: str, name: str, known: list[str]) -> Problem:
    message = f"{what} {quoted(name)}, which is not declared, allowed: {', '.join(known)}"
    hint = nearest(name, known)
    return Problem(origin.file, origin.line, f"{message}, {hint}" if hint else message)


def _port(service: Service) -> str | None:
    return None if service.port is None else f"{service.port}/{service.protocol}"


def _shared(what: str, holders: Sequence[tuple[object, str, Origin]]) -> list[Problem]:
    """What two of the holders (value, name, origin) both have."""
    first: dict[object, tuple[str, Origin]] = {}
    found = []
    for value, name, origin in holders:
        owner, place = first.setdefault(value, (name, origin))
        if value is not None and owner != name:
            message = f"{quoted(name)} has the {what} {value}, which {quoted(owner)} has ({place})"
            found.append(Problem(origin.file, origin.line, f"{message}, allowed: once"))
    return found


def _manifest(whole: ParsedLayer) -> Manifest:
    said = _said(whole)
    found: dict[str, Any] = {}
    for name, key in keys.TOP.items():
        if isinstance(key, Section):
            parts = {part: said[f"{name}.{part}"] for part in key.keys if f"{name}.{part}" in said}
            found[name] = key.model(**parts)
        elif name in said:
            found[name] = said[name]
    return Manifest(**found, origins=_origins(whole))


def _said(whole: ParsedLayer) -> dict[str, Any]:
    """The value of every key that a layer sets."""
    said: dict[str, Any] = {key: item.value for key, item in whole.scalars}
    said |= {key: tuple(item.value for item in entries.items) for key, entries in whole.lists}
    if OPERATIONS in said and said[OPERATIONS][:1] and said[OPERATIONS][0][0] in "+-":
        said[OPERATIONS] = (*Scrub().operations, *said[OPERATIONS])  # "-x" alone means "default,-x"
    return said


def _origins(whole: ParsedLayer) -> tuple[tuple[str, Origin], ...]:
    plain = keys.plain()
    listed = tuple(
        (f"{key}[{index}]", item.origin)
        for key, entries in whole.lists
        if key in plain
        for index, item in enumerate(entries.items)
    )
    return tuple((key, item.origin) for key, item in whole.scalars) + listed
