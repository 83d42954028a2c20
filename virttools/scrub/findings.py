"""Values: what scrubbing found in a tree, what is to be done about it, and against what it looks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b


class Deed(StrEnum):
    """What mends a finding. `report` mends nothing: the last scan fails on it."""

    REMOVE = "remove"
    EMPTY = "empty"
    LOCK = "lock"
    DROP = "drop the line"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be in a tree.

    operation: the name `--operations` takes. path: absolute in the tree. line: from 1, None for the whole file.
    action: a Deed. what: a noun phrase for the user; never the secret itself.
    digest: of the line to mend, so that what changed meanwhile is left alone.
    """

    operation: str
    path: str
    line: int | None
    action: str
    what: str
    digest: str = field(default="", repr=False)

    def __str__(self) -> str:
        where = printable(self.path) + (f":{self.line}" if self.line else "")
        return f"{where}: {self.what} ({self.operation}: {self.action})"

    def document(self) -> dict[str, str | int | None]:
        """The finding as JSON has it."""
        return {
            "operation": self.operation,
            "path": self.path,
            "line": self.line,
            "action": str(self.action),
            "what": self.what,
        }

    def __lt__(self, other: "Finding") -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[str, int, str, str, str, str]:
        return self.path, self.line or 0, self.operation, self.action, self.what, self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Whose tree it is, and who else lives on the machine.

    domain, other_names, host_names: host names, A-labels. other_addresses: IPv4 and IPv6.
    The domain's own name and own_addresses never count as another's, even where the lists hold them too: so
    all domains of a machine may share the same two tuples.
    kept_hashes: password fields that the manifest itself declares.
    """

    domain: str
    other_names: tuple[str, ...] = ()
    other_addresses: tuple[str, ...] = ()
    own_addresses: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    kept_hashes: frozenset[str] = frozenset()


def line_digest(line: bytes) -> str:
    """The digest that a finding carries of a line, which is given without its newline."""
    return blake2b(line, digest_size=16).hexdigest()


def printable(path: str) -> str:
    """`path` with what could confuse a terminal or a log (newlines, escapes, broken UTF-8) escaped."""
    if path.isprintable():
        return path
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in path
    )


@dataclass(frozen=True, slots=True)
class Mends:
    """What is to be done to one path: findings of the same path, put together.

    drops and locks are digests of lines.
    """

    removed: bool
    emptied: bool
    drops: frozenset[str]
    locks: frozenset[str]

    @property
    def rewritten(self) -> bool:
        return not self.removed and (self.emptied or bool(self.drops or self.locks))

    def text(self, before: bytes) -> bytes:
        """What the file says after mending."""
        if self.emptied:
            return b""
        return b"\n".join(
            self._line(line) for line in before.split(b"\n") if line_digest(line) not in self.drops
        )

    def _line(self, line: bytes) -> bytes:
        return locked(line) if line_digest(line) in self.locks else line


def locked(line: bytes) -> bytes:
    """A line of passwd(5), shadow(5), group(5) or gshadow(5) with "!" for its password."""
    fields = line.split(b":")
    fields[1] = b"!"
    return b":".join(fields)


def by_path(findings: Iterable[Finding]) -> dict[str, Mends]:
    """The deeds for each path relative to the tree; findings that are only reported are left out."""
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.action != Deed.REPORT:
            grouped.setdefault(finding.path.removeprefix("/"), []).append(finding)
    return {path: _together(found) for path, found in grouped.items()}


def _together(found: list[Finding]) -> Mends:
    return Mends(
        removed=any(finding.action == Deed.REMOVE for finding in found),
        emptied=any(finding.action == Deed.EMPTY for finding in found),
        drops=frozenset(finding.digest for finding in found if finding.action == Deed.DROP),
        locks=frozenset(finding.digest for finding in found if finding.action == Deed.LOCK),
    )
