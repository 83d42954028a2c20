"""Values: the rules of the chosen operations, compiled so that most paths cost one look into a dict."""

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import NamedTuple

from virttools.scrub.findings import Deed
from virttools.scrub.globs import first_folder, translate
from virttools.scrub.operations import BY_NAME, Operation, Rule

_MOST_REMEMBERED = 1 << 16
_ORDER = (Deed.REMOVE, Deed.EMPTY, Deed.DROP)
_HOME = re.compile(r"root|etc/skel|home/[^/]+(?:/[^/]+)?")
"""Homes wherever the tree's passwd says they are, and these: /home/bob, and /home/b/bob."""


class Applied(NamedTuple):
    """A rule that applies to a path, and whose it is."""

    operation: Operation
    rule: Rule


class _Sorted(NamedTuple):
    """A rule's globs: those from the root of the tree, and those from a home."""

    applied: Applied
    folders: frozenset[str | None]
    fixed: tuple[str, ...]
    homely: tuple[str, ...]


class Rulebook:
    """Which rules apply to a path; the strongest deed comes first."""

    def __init__(self, names: Iterable[str]) -> None:
        applied = [Applied(BY_NAME[name], rule) for name in names for rule in BY_NAME[name].rules]
        applied.sort(key=_precedence)
        self._rules = [_sorted(one) for one in applied]
        self._quick: dict[str, re.Pattern[str] | None] = {}
        self._homely = tuple(glob for rule in self._rules for glob in rule.homely)
        self._remembered: dict[str, tuple[Applied, ...]] = {}

    def applied(self, path: str) -> tuple[Applied, ...]:
        """The rules for a path, whatever homes there are."""
        found = self._remembered.get(path)
        if found is None:
            found = self._found(path)
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[path] = found
        return found

    def applied_in_home(self, path: str, homes: frozenset[str]) -> tuple[Applied, ...]:
        """The rules for a path as one in a home; they all are about names that start with a dot."""
        at = 0 if path.startswith(".") else path.find("/.") + 1
        while at or path.startswith("."):
            home, inside = path[: max(at - 1, 0)], path[at:]
            if (home in homes or _HOME.fullmatch(home)) and _matches(self._homely, inside):
                return tuple(rule.applied for rule in self._rules if _matches(rule.homely, inside))
            at = path.find("/.", at) + 1
            if not at:
                break
        return ()

    def _found(self, path: str) -> tuple[Applied, ...]:
        quick = self._folder(path.partition("/")[0])
        if quick is None or not quick.fullmatch(path):
            return ()
        return tuple(rule.applied for rule in self._rules if _matches(rule.fixed, path))

    def _folder(self, folder: str) -> re.Pattern[str] | None:
        if folder not in self._quick:
            rules = [rule for rule in self._rules if not rule.folders.isdisjoint((folder, None))]
            globs = tuple(glob for rule in rules for glob in rule.fixed)
            self._quick[folder] = _compiled(globs) if globs else None
        return self._quick[folder]


def _precedence(applied: Applied) -> tuple[int, bool]:
    """The strongest deed first; among equals, who names a file goes before who means whole folders."""
    rule = applied.rule
    return _ORDER.index(rule.deed), any("**" in glob for glob in rule.globs)


@lru_cache(maxsize=16)
def rulebook(names: tuple[str, ...]) -> Rulebook:
    """The book for these operations: it remembers paths, and most trees have the same ones."""
    return Rulebook(names)


def _sorted(applied: Applied) -> _Sorted:
    globs = applied.rule.globs
    fixed = tuple(glob for glob in globs if not glob.startswith("~/"))
    return _Sorted(
        applied,
        frozenset(first_folder(glob) for glob in fixed),
        fixed,
        tuple(glob.removeprefix("~/") for glob in globs if glob.startswith("~/")),
    )


def _matches(globs: tuple[str, ...], path: str) -> bool:
    return bool(globs) and _compiled(globs).fullmatch(path) is not None


@cache
def _compiled(globs: tuple[str, ...]) -> re.Pattern[str]:
    """Compiled when first asked for: a tree meets few of the rules, and all take 0.1 s."""
    return re.compile("|".join(translate(glob) for glob in globs))
