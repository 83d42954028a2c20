"""Doer: builds the staging tree of each plan; what plans have in common is made ready once."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EPERM
from functools import partial

from virttools.errors import ApplyError, NeedsPrivilege
from virttools.tree import ids
from virttools.tree.actions import Action, LinkFile, MakeNode, Plan
from virttools.tree.content import Copier
from virttools.tree.failures import failure
from virttools.tree.record import Entry
from virttools.tree.root import Root
from virttools.tree.spread import Job, spread
from virttools.tree.staging import Batch, sweep
from virttools.tree.steps import (
    CopyStep,
    DirectoryStep,
    LinkStep,
    Owner,
    ShareStep,
    Step,
    ready,
)
from virttools.tree.store import Store

__all__ = ["Built", "build", "building", "discard", "sweep"]

Progress = Callable[[int], None]
"""Told how many more actions are done."""

_Doing = tuple[Action, Callable[[int], None]]


@dataclass(frozen=True, slots=True)
class Built:
    """A tree that waits to be published; it lies at staging/`staging_name`/tree.

    entries: one for each thing in it, sorted by path. pristine: paths (as seen from inside) whose
    content is the very one that a package ships. missing: what an ordinary user's tree lacks.
    """

    plan: Plan
    staging_name: str
    path: str
    tree_fd: int
    entries: tuple[Entry, ...]
    pristine: frozenset[str]
    missing: tuple[str, ...]
    batch: Batch


@contextmanager
def building(
    root: Root, plans: Sequence[Plan], *, progress: Progress | None = None
) -> Generator[list[Built], None, None]:
    """`build` for a `with`: what was not published by its end is deleted."""
    builts = build(root, plans, progress=progress)
    try:
        yield builts
    finally:
        discard(builts)


def build(root: Root, plans: Sequence[Plan], *, progress: Progress | None = None) -> list[Built]:
    """Make a staging tree of each plan; `publish` or `discard` them.

    Raises ApplyError naming the action, NeedsPrivilege, HostLacks; then nothing is left of any.
    """
    batch = Batch(root)
    builder = _Builder(root, batch, progress or (lambda _: None))
    builts: list[Built] = []
    try:
        with _umask(0), root.lock_store(shared=True):
            builder.prepare(plans)
            builts.extend(map(builder.build, plans))
            builder.store.save()
    except BaseException:
        discard(builts)
        batch.close()
        raise
    return builts


def discard(builts: Sequence[Built]) -> None:
    """Delete what is left of these staging trees, and close them. Leaves published ones alone."""
    for built in builts:
        if built.batch.has(built.staging_name):
            os.close(built.tree_fd)
            built.batch.discard(built.staging_name)
            if built.batch.is_empty():
                built.batch.close()


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class _Builder:
    """Builds the trees of one batch. Steps are kept by the identity of the actions plans share."""

    def __init__(self, root: Root, batch: Batch, progress: Progress) -> None:
        self._root = root
        self._batch = batch
        self._progress = progress
        self._copier = Copier()
        self.store = Store(root, self._copier)
        self._owner = Owner(ids.here(), os.geteuid(), os.getegid())
        self._steps: dict[int, Step] = {}
        self._told = 0

    def prepare(self, plans: Sequence[Plan]) -> None:
        """Make every action ready, and take into the store what is to be shared."""
        steps = self._steps
        missing: list[Job] = []
        for plan in plans:
            for action in plan.actions:
                if id(action) in steps:
                    continue
                step = ready(action, self._owner, self.store, self._copier, self._root)
                steps[id(action)] = step
                if isinstance(step, ShareStep) and not step.is_stored():
                    missing.append(Job(action, step.size, step.copy))
        self._copy(missing)

    def build(self, plan: Plan) -> Built:
        """One staging tree. Raises ApplyError, NeedsPrivilege, HostLacks."""
        name = self._batch.folder(plan.domain)
        try:
            tree_fd = self._new_tree(name)
        except OSError as error:
            raise ApplyError(
                f"cannot make a staging folder for {plan.domain}: {error.strerror}"
            ) from error
        try:
            self._fill(plan, tree_fd)
        except BaseException:
            os.close(tree_fd)
            self._batch.discard(name)
            raise
        return Built(
            plan=plan,
            staging_name=name,
            path=f"{self._root.path}/.virt/staging/{name}/tree",
            tree_fd=tree_fd,
            entries=self._entries(plan),
            pristine=self._pristine(plan),
            missing=self._owner.lacks(plan.actions),
            batch=self._batch,
        )

    def _new_tree(self, name: str) -> int:
        staging_fd = self._root.staging_fd
        os.mkdir(name, 0o700, dir_fd=staging_fd)
        tree = f"{name}/tree"
        os.mkdir(tree, 0o755, dir_fd=staging_fd)
        tree_fd = os.open(
            tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging_fd
        )
        # Default ACLs and groups are inherited on some file systems and mounts: end that here.
        for attribute in ("system.posix_acl_default", "system.posix_acl_access"):
            with suppress(OSError):
                os.removexattr(tree_fd, attribute)
        os.fchown(tree_fd, self._owner.uid, self._owner.gid)
        os.fchmod(tree_fd, 0o755)
        return tree_fd

    def _fill(self, plan: Plan, tree_fd: int) -> None:
        folders: list[_Doing] = []
        copies: list[Job] = []
        others: list[_Doing] = []
        last: list[_Doing] = []
        for action in plan.actions:
            step = self._steps[id(action)]
            if type(step) is DirectoryStep:
                folders.append((action, step.perform))
                if step.is_special:
                    last.append((action, step.finish))
            elif type(step) is CopyStep:
                copies.append(Job(action, step.size, partial(step.perform, tree_fd)))
            else:
                others.append((action, step.perform))
        _perform(folders, tree_fd)
        self._copy(copies)
        # Second names are among the others, and come after what they name.
        _perform(others, tree_fd)
        _perform(last[::-1], tree_fd)
        self._tell(len(plan.actions))

    def _copy(self, jobs: Sequence[Job]) -> None:
        """Do copies on all cores where they are big; progress runs ahead of the plan by as many."""
        threads = len(os.sched_getaffinity(0))
        spread(jobs, _copy, threads=threads, progress=self._progress)
        self._told += len(jobs)

    def _tell(self, steps: int) -> None:
        ahead = min(self._told, steps)
        self._told -= ahead
        self._progress(steps - ahead)

    def _entries(self, plan: Plan) -> tuple[Entry, ...]:
        entries: dict[str, Entry] = {}
        for action in plan.actions:
            step = self._steps[id(action)]
            if isinstance(action, LinkFile) and isinstance(step, LinkStep):
                entries[action.path] = step.entry_of(entries[action.existing])
            elif not isinstance(step, LinkStep):
                entries[action.path] = step.entry
        return tuple(sorted(entries.values(), key=lambda entry: entry.path))

    def _pristine(self, plan: Plan) -> frozenset[str]:
        found: set[str] = set()
        for action in plan.actions:
            step = self._steps[id(action)]
            if isinstance(step, ShareStep | CopyStep):
                if step.is_pristine:
                    found.add(f"/{action.path}")
            elif isinstance(action, LinkFile) and f"/{action.existing}" in found:
                found.add(f"/{action.path}")
        return frozenset(found)


def _perform(doings: Sequence[_Doing], tree_fd: int) -> None:
    action: Action | None = None
    try:
        for action, perform in doings:  # noqa: B007  the one that failed, below
            perform(tree_fd)
    except OSError as error:
        assert action is not None, "only a step fails"
        raise _refusal(action, error) from error


def _copy(job: Job) -> None:
    try:
        job.copy()
    except OSError as error:
        raise _refusal(job.action, error) from error


def _refusal(action: Action, error: OSError) -> ApplyError | NeedsPrivilege:
    if isinstance(action, MakeNode) and error.errno == EPERM:
        return NeedsPrivilege(
            f"cannot make device node /{action.path}: root lacks CAP_MKNOD here (a container?)",
            hint="run it where device nodes may be made, or take `devices` out of the manifest",
        )
    return failure(action, error)
