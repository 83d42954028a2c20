"""The last look at a tree before it is published: secrets and other domains' names in what nobody mended."""

import logging
from collections.abc import Iterable, Iterator

from virttools.host.facts import Kind
from virttools.scrub import lookers
from virttools.scrub.findings import Context, Deed, Finding, printable
from virttools.scrub.globs import Paths
from virttools.scrub.inspection import Cache, Features, Inspector, Secret
from virttools.scrub.lookers import Scene
from virttools.scrub.neighbours import Neighbours
from virttools.scrub.view import View, ViewFile

_log = logging.getLogger(__name__)

_MOST_OF_A_FILE = 100
"""Findings told of one file: who has a hundred to mend has been told enough."""

_PROGRAM_FOLDERS = ("usr/", "bin/", "sbin/", "lib")
_IN_CONFIGURATION_ONLY = "a signed token (JWT)"


def scan(
    view: View,
    context: Context,
    keep: Iterable[str] = (),
    pristine: frozenset[str] = frozenset(),
    cache: Cache | None = None,
) -> tuple[Finding, ...]:
    """Every secret and every name of another domain that is still in a tree, sorted by path and line.

    keep, pristine, cache: as `scrub.find` has them; a single scan is quicker without a cache. A finding's
    operation is the one that mends such things where it can.
    Raises ApplyError where a file can't be read, UsageError for a bad glob.
    """
    neighbours = Neighbours(context)
    only = neighbours if cache is None else None
    scene = Scene(view, context, Inspector(view, pristine, cache, only=only), neighbours)
    kept = Paths(keep)
    found: set[Finding] = set()
    for file in view.entries():
        if scene.inspector.is_pristine(file):
            continue
        hits = _hits(scene, file)
        if hits and file.path in kept:
            _log.info("kept: /%s", printable(file.path))
        else:
            found.update(hits)
    return tuple(sorted(found))


def _hits(scene: Scene, file: ViewFile) -> list[Finding]:
    found = []
    named = lookers.named_by(file, scene.neighbours)
    if named is not None:
        found.append(_report("other-domains", file, None, named))
    if file.kind is Kind.FILE and file.size:
        inside = list(_inside(scene, file))
        if inside and not scene.inspector.is_public(file):
            found += inside
    return found


def _inside(scene: Scene, file: ViewFile) -> Iterator[Finding]:
    names_somebody = False
    told: set[tuple[int | None, str]] = set()
    for features in scene.inspector.features(file):
        for secret in _undeclared(features, scene.context, file):
            if len(told) < _MOST_OF_A_FILE and (secret.line, secret.what) not in told:
                told.add((secret.line, secret.what))
                yield _report(secret.operation, file, secret.line, secret.what)
        names_somebody |= scene.neighbours.named(features.words) is not None
    if names_somebody:
        yield from _naming_lines(scene, file)
    if lookers.is_accounts(file.path):
        for one in lookers.passwords(scene, file.path):
            if (one.line, "a password hash") not in told:
                yield _report(one.operation, file, one.line, one.what)


def _undeclared(features: Features, context: Context, file: ViewFile) -> Iterator[Secret]:
    """Secrets but for hashes that the manifest declares, and what only looks like one in a program."""
    for secret in features.secrets:
        is_declared = secret.content.decode("latin-1") in context.kept_hashes
        is_code = secret.what == _IN_CONFIGURATION_ONLY and file.path.startswith(_PROGRAM_FOLDERS)
        if not is_declared and not is_code:
            yield secret


def _naming_lines(scene: Scene, file: ViewFile) -> Iterator[Finding]:
    lines = scene.inspector.lines_naming(file, scene.neighbours)
    for _, (line, name) in zip(range(_MOST_OF_A_FILE), lines, strict=False):
        yield _report("other-domains", file, line, f"names {name}")


def _report(operation: str, file: ViewFile, line: int | None, what: str) -> Finding:
    return Finding(operation, f"/{file.path}", line, Deed.REPORT, what)
