"""Creating domains: survey, plan, build, scrub, scan, record, publish; many at once on all cores."""

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from virttools.devlog import places
from virttools.devlog import sockets as log_sockets
from virttools.domains import devlogs, hooks, ids, neighbours, scrubbing
from virttools.domains.neighbours import Neighbours
from virttools.domains.wish import Advance, Options, Wish
from virttools.enter import userns
from virttools.errors import DomainExists
from virttools.host import templates
from virttools.host.facts import Facts
from virttools.host.survey import survey
from virttools.manifest.model import DevLog, Manifest
from virttools.scrub.findings import Finding
from virttools.tree import apply, publish
from virttools.tree.actions import Plan
from virttools.tree.apply import Built
from virttools.tree.chosen import Holding
from virttools.tree.plan import Blueprint, prepare
from virttools.tree.record import Record
from virttools.tree.root import Root, open_root

_BATCH = 32
"""Domains built before one syncfs and their renames: bounds open descriptors, and what a crash throws away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """One domain that is there now. size: bytes of its files; shared: how many are links into the store."""

    domain: str
    path: str
    entries: int
    files: int
    size: int
    shared: int
    scrubbed: tuple[Finding, ...]
    warnings: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What create would do: the plan, what scrub would mend, and what would then fail the build."""

    plan: Plan
    scrubbed: tuple[Finding, ...]
    refused: tuple[Finding, ...]


class _Drawing:
    """The blueprint that manifests share which differ in nothing but `uid_base`."""

    def __init__(self, facts: Facts, first: Manifest) -> None:
        self._blueprint = prepare(first, facts)
        self.count = len(self._blueprint.common)

    def of(self, uid_base: int) -> Blueprint:
        """Moved when a domain's turn comes, by its worker."""
        return self._blueprint.moved(uid_base)


@dataclass(frozen=True, slots=True)
class _Job:
    wish: Wish
    drawing: _Drawing
    said: str | None = None

    def plan(self, log: str | None) -> Plan:
        blueprint = self.drawing.of(self.wish.uid_base)
        plan = blueprint.plan(self.wish.domain, self.wish.addresses, log=log)
        return replace(plan, warnings=(*plan.warnings, self.said)) if self.said else plan


def preview(root_path: str, wishes: Sequence[Wish], options: Options) -> tuple[Preview, ...]:
    """Plan without touching anything; the root need not even be there."""
    wishes = ids.foresee(root_path, wishes)
    around = neighbours.look(root_path, wishes)
    found = []
    for job in _jobs(wishes, options, ids.shared(None, wishes)):
        plan = _plan(job, root_path)
        scrubbed, refused = scrubbing.foresee(plan, job.wish.loaded.manifest, around)
        found.append(Preview(plan=plan, scrubbed=scrubbed, refused=refused))
    return tuple(found)


def create(
    root_path: str,
    wishes: Sequence[Wish],
    options: Options,
    *,
    advance: Advance = lambda _more, _total: None,
) -> tuple[Created, ...]:
    """Create every domain wished for, each whole or not at all.

    Raises DomainExists (before anything is built), ManifestError, HostLacks, SecretFound, ApplyError, Busy.
    """
    userns.require()
    with open_root(root_path, make=True) as root, Holding(root) as holding:
        _refuse_existing(root, wishes)
        wishes = ids.settle(root, holding, wishes)
        neighbours.refuse_taken(root, wishes)
        # The survey comes first: in a user namespace one cannot tell whose the host's files are.
        jobs = _jobs(wishes, options, ids.shared(root, wishes))
        userns.enter()
        apply.sweep(root)
        log_sockets.sweep(root)
        return _create_all(root, jobs, neighbours.look(root_path, wishes), advance)


@contextmanager
def unpublished(
    root_path: str, wish: Wish, options: Options, *, advance: Advance = lambda _more, _total: None
) -> Generator[tuple[Built, Record, Created], None, None]:
    """The tree of a wish, built, scrubbed and scanned, for a `with`: at its end nothing is left of it.

    It is never a domain, so its name, addresses and ids may be anybody's. It has no log socket.
    Raises as `create`.
    """
    userns.require()
    with open_root(root_path, make=True) as root:
        (job,) = _jobs([wish], options, {})
        userns.enter()
        apply.sweep(root)
        around = neighbours.look(root_path, [wish])
        plans = [job.plan(None)]
        total = len(plans[0].actions)
        with apply.building(root, plans, progress=lambda more: advance(more, total)) as builts:
            yield builts[0], *_finish(root, job, builts[0], around)


def _refuse_existing(root: Root, wishes: Sequence[Wish]) -> None:
    for wish in wishes:
        if root.has(wish.domain):
            raise DomainExists(
                f"cannot create {wish.domain}: it exists already",
                hint=f"look at it with `virt show {wish.domain}`, "
                f"or `virt remove {wish.domain}` first",
            )


def _jobs(wishes: Sequence[Wish], options: Options, shared: Mapping[str, str]) -> list[_Job]:
    """One blueprint serves all wishes whose manifests differ in nothing but addresses; one survey, in their ids too.

    shared: what is to be said of a domain's ids.
    """
    drawings: dict[Manifest, _Drawing] = {}
    jobs = []
    for wish in wishes:
        manifest = _without(wish.loaded.manifest, "addresses")
        common = _without(manifest, "uid_base")
        if common not in drawings:
            drawings[common] = _Drawing(_survey(common, options), manifest)
        jobs.append(_Job(wish, drawings[common], shared.get(wish.domain)))
    return jobs


def _survey(manifest: Manifest, options: Options) -> Facts:
    return survey(
        manifest,
        root=options.source_root,
        resolver=options.resolver,
        template_text=templates.text,
    )


def _without(manifest: Manifest, key: str) -> Manifest:
    origins = tuple(pair for pair in manifest.origins if not pair[0].startswith(key))
    changes: dict[str, Any] = {key: getattr(Manifest(), key)}
    return replace(manifest, origins=origins, **changes)


def _create_all(
    root: Root, jobs: Sequence[_Job], around: Neighbours, advance: Advance
) -> tuple[Created, ...]:
    """The first batch here, which fills the store; the rest in one process for each core."""
    total = sum(job.drawing.count for job in jobs)
    cores = len(os.sched_getaffinity(0))
    if len(jobs) < 2 * cores:
        return _create_batch(root, jobs, around, lambda more: advance(more, total))
    created = list(_create_batch(root, jobs[:1], around, lambda more: advance(more, total)))
    for batch in _in_workers(root, jobs[1:], around, cores):
        created += batch
        advance(sum(one.entries for one in batch), total)
    return tuple(created)


def _in_workers(
    root: Root, jobs: Sequence[_Job], around: Neighbours, workers: int
) -> Iterable[tuple[Created, ...]]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    step = min(_BATCH, -(-len(jobs) // workers))
    # Forked, so that blueprints, warm caches and the root's descriptors come along for nothing.
    _Worker.root, _Worker.jobs, _Worker.around = root, jobs, around
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        starts = range(0, len(jobs), step)
        yield from pool.map(_Worker.batch, starts, [step] * len(starts))


class _Worker:
    """What a forked worker inherits: its share is told by two numbers."""

    root: Root
    jobs: Sequence[_Job]
    around: Neighbours

    @classmethod
    def batch(cls, start: int, step: int) -> tuple[Created, ...]:
        share = cls.jobs[start : start + step]
        return _create_batch(cls.root, share, cls.around, lambda _: None)


def _create_batch(
    root: Root, jobs: Sequence[_Job], around: Neighbours, progress: Callable[[int], None]
) -> tuple[Created, ...]:
    with ExitStack() as held:
        for job in jobs:
            held.enter_context(root.lock(job.wish.domain))
        logs = held.enter_context(devlogs.bound(root, _own_logs(jobs)))
        plans = [_plan(job, root.path) for job in jobs]
        builts = held.enter_context(apply.building(root, plans, progress=progress))
        finished = [
            _finish(root, job, built, around) for job, built in zip(jobs, builts, strict=True)
        ]
        held.enter_context(root.lock_all())
        _refuse_existing(root, [job.wish for job in jobs])
        neighbours.refuse_taken(root, [job.wish for job in jobs])
        publish.publish(
            root, [(built, record) for built, (record, _) in zip(builts, finished, strict=True)]
        )
        devlogs.hand_over(root, logs)
    for job in jobs:
        hooks.run(
            job.wish.loaded.manifest, "published", job.wish.domain, f"{root.path}/{job.wish.domain}"
        )
    return tuple(created for _, created in finished)


def _finish(root: Root, job: _Job, built: Built, around: Neighbours) -> tuple[Record, Created]:
    """What comes between building and publishing: hooks, scrub, scan, and the record of the result."""
    manifest = job.wish.loaded.manifest
    changed = hooks.run(manifest, "built", job.wish.domain, built.path)
    scrubbed, entries = scrubbing.clean(built, manifest, around, hooked=changed)
    record = Record(
        domain=job.wish.domain,
        layers=job.wish.loaded.layers,
        addresses=manifest.addresses,
        profiles=manifest.profiles,
        uid_base=manifest.shift,
        devlog=manifest.devlog,
        entries=entries,
    )
    files = [entry for entry in entries if entry.type == "file"]
    return record, Created(
        domain=job.wish.domain,
        path=f"{root.path}/{job.wish.domain}",
        entries=len(entries),
        files=len(files),
        size=sum(entry.size for entry in files),
        shared=sum(entry.shared for entry in files),
        scrubbed=scrubbed,
        warnings=built.plan.warnings + built.missing,
        absent=built.plan.absent,
    )


def _own_logs(jobs: Sequence[_Job]) -> list[str]:
    return [job.wish.domain for job in jobs if job.wish.loaded.manifest.devlog is DevLog.OWN]


def _plan(job: _Job, root_path: str) -> Plan:
    """The plan with its dev/log (DESIGN 8): a socket of its own, or the shared one if that is there."""
    if job.wish.loaded.manifest.devlog is DevLog.OWN:
        return job.plan(places.socket_file(job.wish.domain))
    shared = os.path.join(root_path, places.SHARED)
    if os.path.lexists(shared):
        return job.plan(places.SHARED)
    plan = job.plan(None)
    said = (
        f"{shared} is not there, so there is no /dev/log: `virt log relink` once a daemon listens"
    )
    return replace(plan, warnings=(*plan.warnings, said))
