"""Values: globs over the paths of a tree, many at once, as one regular expression."""

import re
from collections.abc import Iterable
from functools import lru_cache

from virttools.errors import UsageError

_WILD = re.compile(r"[*?\[]")


def translate(glob: str) -> str:
    """A regular expression for a glob: `*` and `?` stay within a folder, `**` does not, `[…]` is a class.

    >>> bool(re.fullmatch(translate("var/**/*.gz"), "var/log/a/b.gz"))
    True
    """
    found: list[str] = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            found.append("(?:[^/]+/)*")
            at += 3
        elif glob.startswith("**", at):
            found.append(r"[\s\S]*")
            at += 2
        elif glob[at] in "*?":
            found.append("[^/]*" if glob[at] == "*" else "[^/]")
            at += 1
        else:
            text, at = _literal(glob, at)
            found.append(text)
    return "".join(found)


def _literal(glob: str, at: int) -> tuple[str, int]:
    end = glob.find("]", at + 2) if glob[at] == "[" else -1
    if end < 0:
        return re.escape(glob[at]), at + 1
    inside = glob[at + 1 : end]
    negated = inside.startswith(("!", "^"))
    letters = re.sub(r"([\\\[\]^&~|])", r"\\\1", inside[1:] if negated else inside)
    return f"(?!/)[{'^' if negated else ''}{letters}]", end + 1


class Paths:
    """Paths that a user names, each with everything below it: what scrubbing keeps."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._pattern = _below(tuple(globs))

    def __contains__(self, path: str) -> bool:
        return self._pattern is not None and self._pattern.fullmatch(path) is not None


@lru_cache(maxsize=64)
def _below(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    words = sorted({glob.strip("/") for glob in globs} - {""})
    return (
        re.compile(rf"(?:{'|'.join(_checked(word) for word in words)})(?:/[\s\S]*)?")
        if words
        else None
    )


def _checked(glob: str) -> str:
    try:
        re.compile(translate(glob))
    except re.error as error:
        raise UsageError(
            f"cannot keep {glob}: it is not a path or glob ({error})",
            hint="write [ for itself as [[]",
        ) from error
    return translate(glob)


def first_folder(glob: str) -> str | None:
    """The folder directly below the root that everything a glob matches lies in, if there is one."""
    first, _, rest = glob.partition("/")
    return None if not rest or _WILD.search(first) else first
