"""Trying a domain's services: what is missing in its tree, and what a client of each service sees."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from virttools.domains import serving
from virttools.errors import UsageError, VirtError
from virttools.manifest.forms import nearest
from virttools.manifest.load import reload
from virttools.manifest.model import Daemon, Manifest, Probe, Service
from virttools.probe import causes, missing, trial
from virttools.probe.causes import Place
from virttools.probe.outcome import Cause, Login, Missing, Outcome
from virttools.probe.trial import Trial
from virttools.serve.board import Target
from virttools.tree.root import open_root

LOOPBACK = "127.0.0.1"
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """How to try. login: as whom, None: as an account of the trial's own; is_live: who listens now is asked.

    virt: how `virt` is called for this root, for the commands that mend.
    """

    login: Login | None = None
    is_live: bool = False
    virt: str = "virt"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it: of each probe, and which paths of the record are gone."""

    outcomes: tuple[Outcome, ...]
    missing: tuple[Missing, ...]
    untried: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        return not self.missing and all(one.is_ok and not one.causes for one in self.outcomes)


def run(root_path: str, domain: str, services: Sequence[str], way: Way) -> Report:
    """Try each probe of a domain, or those of these services, which may be said by what they speak, too.

    Raises UnknownDomain, UsageError for a service that no probe tries.
    """
    with open_root(root_path) as root, root.lock(domain, shared=True):
        record = root.read_record(domain)
        manifest = reload(record.layers)
        probes = _chosen(domain, manifest, services)
        with root.open_tree(domain) as tree_fd:
            gone = missing.found(tree_fd, record)
            place = Place(tree_fd, way.virt, domain, f"{root.path}/{domain}")
            outcomes = tuple(
                _explained(place, way, probe, _tried(root.path, domain, manifest, probe, way))
                for probe in probes
            )
    return Report(outcomes, gone, _untried(manifest))


def _chosen(domain: str, manifest: Manifest, services: Sequence[str]) -> tuple[Probe, ...]:
    known = [name for probe in manifest.probes for name in (probe.service, probe.kind)]
    known = list(dict.fromkeys(known))
    for name in services:
        if name not in known:
            there = f"there are: {', '.join(known) or 'none'}; `probes` in virt-manifest(5)"
            raise UsageError(
                f"cannot try {name} of {domain}: no probe is declared for it",
                hint=nearest(name, known) or there,
            )
    return tuple(
        probe
        for probe in manifest.probes
        if not services or {probe.service, str(probe.kind)} & set(services)
    )


def _untried(manifest: Manifest) -> tuple[str, ...]:
    """What listens and has no probe."""
    tried = {probe.service for probe in manifest.probes}
    ports = [(one.name, one.port) for one in manifest.services]
    ports += [(one.name, next(iter(one.ports), None)) for one in manifest.daemons]
    return tuple(name for name, port in ports if port is not None and name not in tried)


def _tried(root_path: str, domain: str, manifest: Manifest, probe: Probe, way: Way) -> Outcome:
    running: tuple[Service | Daemon, ...] = (*manifest.services, *manifest.daemons)
    one = next(one for one in running if one.name == probe.service)
    try:
        target = _target(root_path, domain, manifest, one)
    except VirtError as error:
        return Outcome(probe.service, _port(one, probe), False, error.message)
    bound = one.bind if isinstance(one, Service) else ()
    addresses = bound or manifest.addresses or (LOOPBACK,)
    first = Trial(
        root_path,
        domain,
        manifest.shift,
        addresses=tuple(dict.fromkeys((*manifest.addresses, *bound))),
        address=addresses[0],
        port=_port(one, probe),
        target=target,
        probe=probe,
        login=way.login,
        seconds=SECONDS,
        listens=isinstance(one, Service) and not one.is_waiting,
        waits=isinstance(one, Service) and one.is_waiting,
        wants_live=way.is_live,
    )
    return _at_each(first, addresses) if way.is_live else trial.run(first)


def _at_each(first: Trial, addresses: Sequence[str]) -> Outcome:
    """What comes of a trial at all addresses: the first that fails, or that all is well."""
    found = trial.run(first)
    for address in addresses[1:]:
        if not found.is_ok:
            break
        found = trial.run(replace(first, address=address))
    if len(addresses) == 1 or not (found.is_ok or found.is_live):
        return found
    where = f", at each of {len(addresses)} addresses" if found.is_ok else f" (at {found.address})"
    return replace(found, told=found.told + where)


def _target(root_path: str, domain: str, manifest: Manifest, one: Service | Daemon) -> Target:
    if isinstance(one, Service):
        return serving.target(root_path, domain, manifest, one)
    return serving.daemon_target(root_path, domain, manifest, one)


def _port(one: Service | Daemon, probe: Probe) -> int:
    own = one.port if isinstance(one, Service) else next(iter(one.ports), None)
    return probe.port or own or 0


def _explained(place: Place, way: Way, probe: Probe, outcome: Outcome) -> Outcome:
    """With what can be seen to be the cause; a full file system is one even where a trial had room."""
    found = list(causes.of_room(place, probe.kind))
    if way.is_live and not outcome.is_live:
        found += _of_silence(way, place.domain, outcome)
    elif way.login is not None and not outcome.is_ok:
        name, is_denied = way.login.name, outcome.is_denied
        found += causes.of_login(place, probe.kind, name, is_denied=is_denied)
    return replace(outcome, causes=tuple(found))


def _of_silence(way: Way, domain: str, outcome: Outcome) -> Iterator[Cause]:
    if outcome.address in ("", LOOPBACK):
        yield Cause(f"{domain} has no address of its own", f"{way.virt} show {domain}")
    elif trial.is_here(outcome.address):
        yield Cause("nothing listens there", f"{way.virt} serve")
    else:
        yield Cause(f"no interface has the address {outcome.address}", f"{way.virt} ip sync")
