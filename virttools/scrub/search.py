"""Finds what must not be in a tree, by the chosen operations; `mend` (scrub.mend) does what the findings say."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from virttools.errors import UsageError
from virttools.scrub.findings import Context, Deed, Finding, by_path, line_digest, printable
from virttools.scrub.globs import Paths
from virttools.scrub.inspection import Cache, Inspector
from virttools.scrub.lookers import LOOKERS, Scene
from virttools.scrub.mend import mend
from virttools.scrub.neighbours import Neighbours
from virttools.scrub.operations import BY_NAME, OPERATIONS
from virttools.scrub.rulebook import Applied, rulebook
from virttools.scrub.view import MendedView, View, ViewFile, read

__all__ = ["OPERATIONS", "find", "mend", "mended", "select"]

_log = logging.getLogger(__name__)

_DEFAULT = tuple(operation.name for operation in OPERATIONS if operation.default)
_SETS = {"default": _DEFAULT, "defaults": _DEFAULT, "all": tuple(BY_NAME)}


def select(words: Sequence[str]) -> tuple[str, ...]:
    """The operations that `--operations` words mean, in order of name.

    Each word is a name, `default` or `all`, with `+` or nothing before it to add, `-` to take away; commas
    part words too. If the first word has a sign, the default operations are the start.
    Raises UsageError for a word that is none.
    """
    split = [part for word in words for part in word.split(",") if part]
    signed = bool(split) and split[0][0] in "+-"
    chosen = set(_DEFAULT if signed or not split else ())
    for word in split:
        names = _meant(word.lstrip("+-") if word[0] in "+-" else word)
        chosen = chosen - names if word.startswith("-") else chosen | names
    return tuple(name for name in BY_NAME if name in chosen)


def _meant(word: str) -> set[str]:
    if word in _SETS:
        return set(_SETS[word])
    if word in BY_NAME:
        return {word}
    close = get_close_matches(word, [*BY_NAME, *_SETS], n=1)
    raise UsageError(
        f"cannot choose the operation {printable(word)!r}: there is none of that name",
        hint=f"did you mean {close[0]}?" if close else "list them with --list-operations",
    )


def find(
    view: View,
    context: Context,
    names: Sequence[str],
    keep: Iterable[str] = (),
    *,
    pristine: frozenset[str] = frozenset(),
    cache: Cache | None = None,
) -> tuple[Finding, ...]:
    """What the operations `names` would mend in a tree, sorted by path and line; changes nothing.

    keep: paths and globs in the tree that stay, with all below them. pristine: paths, absolute in the tree,
    known to be as their packages ship them. cache: may serve many views. Raises ApplyError, UsageError.
    """
    scene = Scene(view, context, Inspector(view, pristine, cache), Neighbours(context))
    wishes: dict[str, list[Finding]] = {}
    for finding in _wished(scene, tuple(names)):
        wishes.setdefault(finding.path[1:], []).append(finding)
    if not wishes:
        return ()
    return tuple(sorted(_settled(view.entries(), wishes, Paths(keep))))


def mended(view: View, findings: Iterable[Finding]) -> MendedView:
    """The tree as it will be once the findings are mended: what the last scan will see."""
    return MendedView(view, by_path(findings))


def _wished(scene: Scene, names: tuple[str, ...]) -> Iterator[Finding]:
    book = rulebook(names)
    homes = scene.homes
    for file in scene.view.entries():
        applied = book.applied(file.path)
        if "." in file.path:
            applied += book.applied_in_home(file.path, homes)
        for one in applied:
            if file.kind in one.rule.kinds and (found := tuple(_by_rule(scene, file, one))):
                yield from found
                break
    for name in names:
        if name in LOOKERS:
            yield from LOOKERS[name](scene)


def _by_rule(scene: Scene, file: ViewFile, applied: Applied) -> Iterator[Finding]:
    operation, rule = applied
    path = f"/{file.path}"
    match rule.deed:
        case Deed.REMOVE:
            yield Finding(operation.name, path, None, Deed.REMOVE, operation.what)
        case Deed.EMPTY if file.size:
            yield Finding(operation.name, path, None, Deed.EMPTY, operation.what)
        case Deed.DROP:
            marked = re.compile(rule.lines.encode())
            for number, line in enumerate(read(scene.view, file.path).split(b"\n"), 1):
                if marked.match(line):
                    yield Finding(
                        operation.name, path, number, Deed.DROP, operation.what, line_digest(line)
                    )
        case _:
            return


def _settled(
    entries: Sequence[ViewFile], wishes: dict[str, list[Finding]], kept: Paths
) -> Iterator[Finding]:
    """The wishes without those below what goes anyway; a folder that holds something kept stays itself."""
    pinned = _above(file.path for file in entries if file.path in kept)
    gone: set[str] = set()
    thinned: dict[str, Finding] = {}
    for file in entries:
        path = file.path
        parent = path.rpartition("/")[0]
        if parent in gone:
            gone.add(path)
            continue
        found = wishes.get(path, ())
        removal = next((one for one in found if one.action == Deed.REMOVE), None)
        if removal is None and parent in thinned:
            removal = thinned[parent]
        if removal is None and not found:
            continue
        if path in kept:
            _log.info("kept: /%s", printable(path))
        elif removal is None:
            yield from _distinct(found)
        elif path in pinned:
            thinned[path] = removal
        else:
            gone.add(path)
            yield Finding(removal.operation, f"/{path}", None, Deed.REMOVE, removal.what)


def _above(paths: Iterable[str]) -> set[str]:
    """Every folder on the way to one of these paths."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def _distinct(found: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of one file: emptied, it needs nothing else; no line is mended twice."""
    emptied = [one for one in found if one.action == Deed.EMPTY]
    if emptied:
        yield emptied[0]
        return
    lines: set[int | None] = set()
    for one in found:
        if one.line not in lines:
            lines.add(one.line)
            yield one
