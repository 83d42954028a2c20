"""Trying a domain's services: what is missing in its tree, and what a client of each service sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from virttools.domains import serving
from virttools.errors import UsageError, VirtError
from virttools.manifest.forms import nearest
from virttools.manifest.load import reload
from virttools.manifest.model import Manifest, Probe
from virttools.probe import missing, trial
from virttools.probe.outcome import Login, Missing, Outcome
from virttools.probe.trial import Trial
from virttools.tree.root import open_root

LOOPBACK = "127.0.0.1"
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it: of each probe, and which paths of the record are gone."""

    outcomes: tuple[Outcome, ...]
    missing: tuple[Missing, ...]
    untried: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        return not self.missing and all(one.is_ok for one in self.outcomes)


def run(
    root_path: str,
    domain: str,
    services: Sequence[str],
    *,
    login: Login | None,
    told: Callable[[Outcome], None] = lambda _: None,
) -> Report:
    """Try each probe of a domain, or those of these services; `told` hears of each as it is done.

    Raises UnknownDomain, UsageError for a service that no probe tries.
    """
    with open_root(root_path) as root, root.lock(domain, shared=True):
        record = root.read_record(domain)
        manifest = reload(record.layers)
        probes = _chosen(domain, manifest, services)
        with root.open_tree(domain) as tree_fd:
            gone = missing.found(tree_fd, record)
        path = root.path
        daemons = {daemon.name for daemon in manifest.daemons}
        outcomes = []
        for probe in probes:
            attempt = _try_daemon if probe.service in daemons else _try
            outcomes.append(attempt(path, domain, manifest, probe, login))
            told(outcomes[-1])
    tried = {probe.service for probe in manifest.probes}
    ports = [(one.name, one.port) for one in manifest.services]
    ports += [(one.name, next(iter(one.ports), None)) for one in manifest.daemons]
    untried = tuple(name for name, port in ports if port is not None and name not in tried)
    return Report(tuple(outcomes), gone, untried)


def _chosen(domain: str, manifest: Manifest, services: Sequence[str]) -> tuple[Probe, ...]:
    known = [probe.service for probe in manifest.probes]
    for name in services:
        if name not in known:
            there = f"there are: {', '.join(known) or 'none'}; `probes` in virt-manifest(5)"
            raise UsageError(
                f"cannot try {name} of {domain}: no probe is declared for it",
                hint=nearest(name, known) or there,
            )
    return tuple(probe for probe in manifest.probes if not services or probe.service in services)


def _try(
    root_path: str, domain: str, manifest: Manifest, probe: Probe, login: Login | None
) -> Outcome:
    service = next(one for one in manifest.services if one.name == probe.service)
    try:
        target = serving.target(root_path, domain, manifest, service)
    except VirtError as error:
        return Outcome(probe.service, service.port or 0, False, error.message)
    addresses = service.bind or manifest.addresses
    return trial.run(
        Trial(
            root_path,
            domain,
            manifest.uid_base,
            manifest.addresses,
            address=addresses[0] if addresses else LOOPBACK,
            port=service.port or 0,
            target=target,
            probe=probe,
            login=login,
            seconds=SECONDS,
            listens=not service.is_waiting,
            waits=service.is_waiting,
        )
    )


def _try_daemon(
    root_path: str, domain: str, manifest: Manifest, probe: Probe, login: Login | None
) -> Outcome:
    daemon = next(one for one in manifest.daemons if one.name == probe.service)
    port = next(iter(daemon.ports), 0)
    try:
        target = serving.daemon_target(root_path, domain, manifest, daemon)
    except VirtError as error:
        return Outcome(probe.service, port, False, error.message)
    return trial.run(
        Trial(
            root_path,
            domain,
            manifest.uid_base,
            manifest.addresses,
            address=next(iter(manifest.addresses), LOOPBACK),
            port=port,
            target=target,
            probe=probe,
            login=login,
            seconds=SECONDS,
            listens=False,
        )
    )
