"""Values: the rules of the chosen operations, compiled so that most paths cost one look into a dict."""

import re
from collections.abc import Iterable
from functools import lru_cache
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


class _Compiled(NamedTuple):
    applied: Applied
    folders: frozenset[str | None]
    pattern: re.Pattern[str] | None
    home_pattern: re.Pattern[str] | None


class Rulebook:
    """Which rules apply to a path; the strongest deed comes first."""

    def __init__(self, names: Iterable[str]) -> None:
        applied = [Applied(BY_NAME[name], rule) for name in names for rule in BY_NAME[name].rules]
        applied.sort(key=_precedence)
        self._rules = [_compiled(one) for one in applied]
        self._quick: dict[str, re.Pattern[str] | None] = {}
        self._homely = _either(rule.home_pattern for rule in self._rules)
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
                return tuple(
                    rule.applied for rule in self._rules if _matches(rule.home_pattern, inside)
                )
            at = path.find("/.", at) + 1
            if not at:
                break
        return ()

    def _found(self, path: str) -> tuple[Applied, ...]:
        if not _matches(self._folder(path.partition("/")[0]), path):
            return ()
        return tuple(rule.applied for rule in self._rules if _matches(rule.pattern, path))

    def _folder(self, folder: str) -> re.Pattern[str] | None:
        if folder not in self._quick:
            self._quick[folder] = _either(
                rule.pattern for rule in self._rules if not rule.folders.isdisjoint((folder, None))
            )
        return self._quick[folder]


def _precedence(applied: Applied) -> tuple[int, bool]:
    """The strongest deed first; among equals, who names a file goes before who means whole folders."""
    rule = applied.rule
    return _ORDER.index(rule.deed), any("**" in glob for glob in rule.globs)


@lru_cache(maxsize=16)
def rulebook(names: tuple[str, ...]) -> Rulebook:
    """The book for these operations: it remembers paths, and most trees have the same ones."""
    return Rulebook(names)


def _compiled(applied: Applied) -> _Compiled:
    fixed = [glob for glob in applied.rule.globs if not glob.startswith("~/")]
    homely = [glob.removeprefix("~/") for glob in applied.rule.globs if glob.startswith("~/")]
    return _Compiled(
        applied,
        frozenset(first_folder(glob) for glob in fixed),
        _pattern(fixed),
        _pattern(homely),
    )


def _pattern(globs: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(translate(glob) for glob in globs)) if globs else None


def _either(patterns: Iterable[re.Pattern[str] | None]) -> re.Pattern[str] | None:
    texts = [pattern.pattern for pattern in patterns if pattern is not None]
    return re.compile("|".join(texts)) if texts else None


def _matches(pattern: re.Pattern[str] | None, path: str) -> bool:
    return pattern is not None and pattern.fullmatch(path) is not None
