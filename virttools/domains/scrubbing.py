"""Scrubbing: of every tree before it is published, of a plan by looking ahead, and of a living tree."""

from collections.abc import Sequence
from dataclasses import dataclass

from virttools.domains import neighbours
from virttools.domains.neighbours import Neighbours
from virttools.enter import userns
from virttools.errors import Problem, SecretFound
from virttools.manifest.load import reload
from virttools.manifest.model import Manifest
from virttools.scrub import search as scrubber
from virttools.scrub import secrets
from virttools.scrub.findings import Context, Finding
from virttools.scrub.inspection import Cache
from virttools.scrub.view import BuiltView, TreeView, View
from virttools.tree import describe
from virttools.tree.record import Entry, Record
from virttools.tree.root import open_root

# What builds a tree is half of all modules, and a living tree needs none of them.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from virttools.tree.actions import Plan
    from virttools.tree.apply import Built

Findings = tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """scrubbed: what was mended (or would be); refused: what the scan still sees after that."""

    scrubbed: Findings
    refused: Findings


_seen: Cache = {}
"""What the scan learnt of files that many trees share; lives as long as the process."""


def foresee(plan: "Plan", manifest: Manifest, around: Neighbours) -> tuple[Findings, Findings]:
    """What scrub would mend in the tree of that plan, and what would then fail the build."""
    from virttools.scrub.planned import PlanView

    context = _context(plan.domain, manifest, around)
    return _look(PlanView(plan), context, _selected(manifest), manifest.scrub.keep)


def clean(
    built: "Built", manifest: Manifest, around: Neighbours, *, hooked: bool
) -> tuple[Findings, tuple[Entry, ...]]:
    """Scrub a staging tree and scan it; returns what was mended and the entries as they are now.

    hooked: programs of the site changed the tree, so the plan does not say what is in it.
    Raises SecretFound with every hit of the scan, as file, line and operation.
    """
    context = _context(built.plan.domain, manifest, around)
    tree_fd, keep = built.tree_fd, manifest.scrub.keep
    entries, pristine = built.entries, built.pristine
    if hooked:
        entries = describe.whole(tree_fd, entries, rule="hook", origin="hooks")
        pristine = frozenset()
    view = BuiltView(tree_fd, entries)
    scrubbed = scrubber.find(
        view, context, _selected(manifest), keep, pristine=pristine, cache=_seen
    )
    if scrubbed:
        scrubber.mend(tree_fd, scrubbed)
        entries = _entries_after(tree_fd, entries, scrubbed)
        view = BuiltView(tree_fd, entries)
    hits = secrets.scan(view, context, keep, pristine, _seen)
    if hits:
        raise _refusal(built.plan.domain, hits)
    return scrubbed, entries


def refuse_secrets(
    root_path: str, tree_fd: int, record: Record, manifest: Manifest, pristine: frozenset[str]
) -> None:
    """Look through a living tree before it is given away, but for the files known to be `pristine`.

    Raises SecretFound with every hit.
    """
    context = _context(record.domain, manifest, neighbours.look(root_path, ()))
    view = TreeView(tree_fd, record.entries)
    hits = secrets.scan(view, context, manifest.scrub.keep, pristine)
    if hits:
        raise _refusal(
            record.domain,
            hits,
            verb="make an image of",
            hint="make it from the manifest, virt image -m FILE, or name their paths in `scrub.keep`",
        )


def scrub(
    root_path: str, domain: str, *, operations: Sequence[str] | None, dry_run: bool
) -> Report:
    """Scrub a living tree by its recorded manifest, which leaves the keys of its services there.

    operations: instead of the manifest's.

    Raises UnknownDomain, Busy, UsageError for an operation that is not there.
    """
    with open_root(root_path) as root, root.lock(domain):
        record = root.read_record(domain)
        manifest = reload(record.layers)
        context = _context(domain, manifest, neighbours.look(root_path, ()))
        keep = (*manifest.scrub.keep, *manifest.scrub.own)
        userns.enter()
        names = scrubber.select(operations) if operations is not None else _selected(manifest)
        with root.open_tree(domain) as tree_fd:
            view = TreeView(tree_fd, record.entries)
            found, left = _look(view, context, names, keep)
            if not dry_run:
                scrubber.mend(tree_fd, found)
                left = secrets.scan(TreeView(tree_fd, record.entries), context, keep)
    return Report(found, left)


def _look(
    view: View, context: Context, operations: tuple[str, ...], keep: Sequence[str]
) -> tuple[Findings, Findings]:
    """What the operations would mend, and what the scan would see after that."""
    found = scrubber.find(view, context, operations, keep, cache=_seen)
    return found, secrets.scan(scrubber.mended(view, found), context, keep, cache=_seen)


def _context(domain: str, manifest: Manifest, around: Neighbours) -> Context:
    declared = frozenset(user.password for user in manifest.users if len(user.password) > 2)
    return around.context(domain, declared)


def _selected(manifest: Manifest) -> tuple[str, ...]:
    return scrubber.select(manifest.scrub.operations)


def _entries_after(
    tree_fd: int, entries: tuple[Entry, ...], scrubbed: Findings
) -> tuple[Entry, ...]:
    touched = {finding.path for finding in scrubbed}
    below = tuple(f"{path}/" for path in touched)
    return describe.again(
        tree_fd,
        entries,
        (entry.path for entry in entries if entry.path in touched or entry.path.startswith(below)),
    )


def _count(hits: Findings) -> str:
    return "1 thing" if len(hits) == 1 else f"{len(hits)} things"


def _refusal(
    domain: str,
    hits: Findings,
    *,
    verb: str = "publish",
    hint: str = "take them out of what the manifest copies, or name their paths in `scrub.keep`",
) -> SecretFound:
    problems = tuple(
        Problem(hit.path, hit.line or 0, f"{hit.what} (operation {hit.operation})") for hit in hits
    )
    return SecretFound(
        f"cannot {verb} {domain}: {_count(hits)} in it must not be published",
        problems=problems,
        hint=hint,
    )
