"""Reads paths of a host, or of a file system below `root`: links, listings, contents.

All paths are text, absolute as seen inside root; a link never leads out of it.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

_LIMIT = 40
"""Links followed before a chain counts as a loop, as in the kernel (path_resolution(7))."""
_MAGIC = frozenset("*?[")
_LARGEST = 1 << 26
ABSENT = "no such file or directory"


@dataclass(frozen=True, slots=True)
class Walk:
    """How a path resolves.

    path: canonical, or how far it went. links: every link met, canonical, in order.
    chain: those of them that stand for the last name of the path: [named link, its target, …].
    stat: of `path`; None where it leads nowhere, and then `fault` says why.
    """

    path: str
    links: tuple[str, ...]
    chain: tuple[str, ...]
    stat: os.stat_result | None
    fault: str | None


class Sysroot:
    """One file system tree, memoised for this object's life."""

    def __init__(self, root: str = "/") -> None:
        real = os.path.realpath(root)
        self._prefix = "" if real == "/" else real
        self._stats: dict[str, os.stat_result | None] = {}
        self._walks: dict[str, Walk] = {}
        self._targets: dict[str, str] = {}
        self._lists: dict[str, tuple[str, ...]] = {}
        self._globs: dict[str, tuple[str, ...]] = {}

    def host(self, path: str) -> str:
        """Where the canonical `path` lies for a system call of ours."""
        return self._prefix + path

    def lstat(self, path: str) -> os.stat_result | None:
        """What is at the canonical path; None for nothing. Raises OSError where we may not look."""
        try:
            return self._stats[path]
        except KeyError:
            pass
        try:
            found = os.lstat(self._prefix + path if path else self._prefix or "/")
        except (FileNotFoundError, NotADirectoryError):
            found = None
        self._stats[path] = found
        return found

    def target(self, link: str) -> str:
        """The text of the symlink at that canonical path."""
        found = self._targets.get(link)
        if found is None:
            found = self._targets[link] = os.readlink(self._prefix + link)
        return found

    def walk(self, path: str) -> Walk:
        """Resolve `path` as the kernel would with `root` as its root directory."""
        found = self._walks.get(path)
        if found is None:
            found = self._walks[path] = self._walk(path)
        return found

    def _walk(self, path: str) -> Walk:
        here = ""
        links: list[str] = []
        chain: list[str] = []
        pending = _names(path)
        try:
            while pending:
                name = pending.pop()
                if name == "..":
                    here = here.rpartition("/")[0]
                    continue
                full = f"{here}/{name}"
                found = self.lstat(full)
                if found is None:
                    return Walk(full, tuple(links), tuple(chain), None, _dangling(full, chain))
                if not stat.S_ISLNK(found.st_mode):
                    here = full
                    continue
                links.append(full)
                if not pending:
                    chain.append(full)
                if len(links) > _LIMIT:
                    fault = f"the links {' -> '.join(links[:4])} … form a loop"
                    return Walk(full, tuple(links), tuple(chain), None, fault)
                target = self.target(full)
                here = "" if target.startswith("/") else here
                pending += _names(target)
            found = self.lstat(here)
        except OSError as error:
            fault = f"{error.filename}: {error.strerror}"
            return Walk(here, tuple(links), tuple(chain), None, fault)
        return Walk(here or "/", tuple(links), tuple(chain), found, None)

    def stat(self, path: str) -> os.stat_result | None:
        """What `path` leads to, links followed; None where it leads nowhere."""
        return self.walk(path).stat

    def is_file(self, path: str) -> bool:
        found = self.stat(path)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_directory(self, path: str) -> bool:
        found = self.stat(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def names(self, directory: str) -> tuple[str, ...]:
        """The names in a directory, sorted; none where it is not one, or may not be read."""
        canonical = self.walk(directory).path
        found = self._lists.get(canonical)
        if found is None:
            try:
                found = tuple(sorted(os.listdir(self._prefix + canonical)))
            except OSError:
                found = ()
            self._lists[canonical] = found
        return found

    def glob(self, pattern: str) -> tuple[str, ...]:
        """The paths that match, sorted. `*`, `?` and `[…]` stay within a name; `**` is any folders.

        As in a shell, a leading dot must be matched by a dot.
        """
        known = self._globs.get(pattern)
        if known is None:
            found = [""]
            for part in (part for part in pattern.split("/") if part):
                found = [path for parent in found for path in self._matches(parent, part)]
            known = self._globs[pattern] = tuple(sorted(set(found)))
        return known

    def _matches(self, parent: str, part: str) -> Iterator[str]:
        if part == "**":
            yield from self._folders(parent)
        elif is_glob(part):
            for name in self.names(parent or "/"):
                if fnmatchcase(name, part) and name.startswith(".") <= part.startswith("."):
                    yield f"{parent}/{name}"
        else:
            path = f"{parent}/{part}"
            walk = self.walk(path)
            if walk.stat is not None or walk.chain:
                yield path

    def _folders(self, parent: str) -> Iterator[str]:
        yield parent
        for name in self.names(parent or "/"):
            path = f"{parent}/{name}"
            found = self.lstat(self.walk(parent).path.rstrip("/") + "/" + name)
            if found is not None and stat.S_ISDIR(found.st_mode) and not name.startswith("."):
                yield from self._folders(path)

    def open(self, path: str) -> int | None:
        """A descriptor of the regular file at that canonical path; None for all else.

        Its owner may put a fifo or a link there while we look: neither is waited for or followed.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            fd = os.open(self._prefix + path, flags)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def head(self, path: str, size: int) -> bytes:
        """The first bytes of the regular file at that canonical path; b"" if it can't be read."""
        fd = self.open(path)
        if fd is None:
            return b""
        try:
            return os.pread(fd, size, 0)
        finally:
            os.close(fd)

    def read(self, path: str) -> bytes | None:
        """What the file that `path` leads to holds, at most 64 MB; None if it can't be read."""
        walk = self.walk(path)
        fd = None if walk.stat is None else self.open(walk.path)
        if fd is None:
            return None
        with open(fd, "rb") as file:
            return file.read(_LARGEST)


def is_glob(path: str) -> bool:
    return not _MAGIC.isdisjoint(path)


def _names(path: str) -> list[str]:
    """The parts of a path, last first."""
    return [name for name in reversed(path.split("/")) if name and name != "."]


def _dangling(end: str, chain: list[str]) -> str:
    if not chain:
        return ABSENT
    return f"the links {' -> '.join((*chain[-3:], end))} lead nowhere"
