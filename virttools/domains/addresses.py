"""The addresses of domains on the interfaces of the host: put there, taken away, given, withdrawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from virttools.errors import ApplyError, ConfigError, DomainExists, UnknownDomain
from virttools.manifest.load import with_addresses
from virttools.net import claims
from virttools.net.alias import Alias, Changes, Held, changes, default_prefix, is_ours
from virttools.net.aliases import Interfaces, interfaces
from virttools.tree.record import encode
from virttools.tree.rewrite import rewrite
from virttools.tree.root import Root, open_root, record_file


@dataclass(frozen=True, slots=True)
class Place:
    """An address, the domain that declares it and the interface that has it, None where there is none."""

    address: str
    domain: str | None
    interface: str | None
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Synced:
    """What was to change, and the addresses that could not be had."""

    changes: Changes
    failures: tuple[DomainExists, ...] = ()


def places(root_path: str) -> tuple[Place, ...]:
    """Every address of a domain, and those of ours that no domain has any more."""
    try:
        with open_root(root_path) as root, interfaces() as found:
            owners = _owners(root)
            held = found.held()
            claimed = claims.read(root)
    except UnknownDomain:
        return ()
    where = {one.alias.address: one for one in held}
    gone = [it for it in where if is_ours(where[it], claimed) and it not in owners]
    return tuple(_place(it, owners.get(it), where.get(it), claimed) for it in (*owners, *gone))


def _place(address: str, domain: str | None, held: Held | None, claimed: frozenset[str]) -> Place:
    if held is None:
        return Place(address, domain, None, is_ours=False)
    return Place(address, domain, held.alias.interface, is_ours=is_ours(held, claimed))


def sync(
    root_path: str, interface: str | None, *, dry_run: bool = False, probe: bool = True
) -> Synced:
    """Have each domain's addresses on the interface, and none of ours that no domain declares.

    probe: ask the network first whether another machine has them.

    Raises ConfigError, NeedsPrivilege, HostLacks, ApplyError.
    """
    with open_root(root_path) as root, root.lock_all(), interfaces() as found:
        wanted = tuple(_owners(root))
        return _sync(root, found, _wanted(found, wanted, interface), dry_run=dry_run, probe=probe)


def give(
    root_path: str, domain: str, address: str, interface: str | None, *, probe: bool = True
) -> Synced:
    """Add an address to a domain: on the interface first, and in the record when that went well.

    A crash between leaves an alias that no domain declares; the next sync takes it away.
    """
    with (
        open_root(root_path) as root,
        root.lock(domain),
        root.lock_all(),
        interfaces() as found,
    ):
        root.require(domain, "give an address to")
        owners = _owners(root)
        if (holder := owners.get(address, domain)) != domain:
            raise DomainExists(
                f"cannot give {address} to {domain}: {holder} has it",
                hint=f"choose another address, or withdraw it: virt ip del {holder} {address}",
            )
        wanted = _wanted(found, (address,), interface)
        done = _sync(root, found, wanted, only=address, probe=probe)
        if done.failures:
            raise done.failures[0]
        if address not in owners:
            _record(root, domain, (*root.head(domain).addresses, address))
        return done


def withdraw(root_path: str, domain: str, address: str) -> Synced:
    """Take an address from a domain: out of the record first, then off the interface if it is ours."""
    with (
        open_root(root_path) as root,
        root.lock(domain),
        root.lock_all(),
        interfaces() as found,
    ):
        root.require(domain, "take an address from")
        had = root.head(domain).addresses
        if address not in had:
            raise UnknownDomain(
                f"cannot take {address} from {domain}: it does not have it",
                hint=f"it has: {', '.join(had)}" if had else "it has no address",
            )
        _record(root, domain, tuple(it for it in had if it != address))
        return _sync(root, found, {}, only=address)


def _owners(root: Root) -> dict[str, str]:
    return {address: head.domain for head in root.heads() for address in head.addresses}


def _wanted(
    found: Interfaces, addresses: Sequence[str], interface: str | None
) -> Mapping[str, Alias]:
    """The aliases for addresses; none need an interface where there are none."""
    if not addresses:
        return {}
    name = interface or found.default()
    if name is None:
        raise ConfigError(
            "cannot choose an interface: this machine has no default route",
            hint=f"--interface, or interface in virt.toml, names one of: {', '.join(found.names())}",
        )
    found.require(name)
    return {it: Alias(it, default_prefix(it), name) for it in addresses}


def _sync(
    root: Root,
    found: Interfaces,
    wanted: Mapping[str, Alias],
    *,
    only: str | None = None,
    dry_run: bool = False,
    probe: bool = True,
) -> Synced:
    """only: no other address is touched. The list of what is ours is never shorter than the truth."""
    held = found.held()
    claimed = claims.read(root)
    in_view = [one for one in held if only in (None, one.alias.address)]
    plan = changes(wanted, in_view, claimed)
    if dry_run or not plan:
        return Synced(plan)
    claims.write(root, claimed | {alias.address for alias in plan.add})
    for alias in plan.remove:
        found.remove(alias)
    failures = _add(found, plan.add, found.duplicates(plan.add) if probe else {})
    marked = {one.alias.address for one in found.held() if one.is_marked}
    claims.write(root, (claimed | {alias.address for alias in plan.add}) & marked)
    return Synced(plan, failures)


def _add(
    found: Interfaces, aliases: Sequence[Alias], elsewhere: Mapping[Alias, DomainExists]
) -> tuple[DomainExists, ...]:
    """One address that cannot be had keeps no other domain from its own."""
    failures = list(elsewhere.values())
    added: list[Alias] = []
    for alias in aliases:
        if alias in elsewhere:
            continue
        try:
            found.add(alias)
            added.append(alias)
        except DomainExists as error:
            failures.append(error)
    found.announce(added)
    for alias in added:
        try:
            found.settle(alias)
        except DomainExists as error:
            failures.append(error)
    return tuple(failures)


def _record(root: Root, domain: str, addresses: tuple[str, ...]) -> None:
    record = root.read_record(domain)
    layers = with_addresses(record.layers, addresses)
    text = encode(replace(record, addresses=addresses, layers=layers))
    try:
        rewrite(root, record_file(domain), text, dir_fd=root.records_fd)
    except OSError as error:
        raise ApplyError(f"cannot write the record of {domain}: {error.strerror}") from error
