"""Reads from wants to what belongs in a tree: host paths, their links, closures and bundles."""

import os
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property, reduce

from virttools.errors import HostLacks, Problem
from virttools.host.bundles import RULES, Program
from virttools.host.closure import Closure
from virttools.host.facts import Kind
from virttools.host.ldso import CACHE, Cache
from virttools.host.scripts import interpreter
from virttools.host.sysroot import ABSENT, Sysroot, Walk
from virttools.manifest.model import Origin

PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for by name."""


_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


class Absence(Enum):
    """What it means that the host lacks something."""

    PROBLEM = auto()
    WARNING = auto()
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class Override:
    """What a manifest line says of a file instead of the host; None keeps the host's.

    line: its place in the manifest: of two, the later one holds.
    """

    line: int = 0
    mode: int | None = None
    owner: str | None = None
    group: str | None = None

    def over(self, earlier: "Override") -> "Override":
        return Override(
            self.line,
            earlier.mode if self.mode is None else self.mode,
            earlier.owner if self.owner is None else self.owner,
            earlier.group if self.group is None else self.group,
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """facts.Why, with paths as text."""

    rule: str
    by: str | None
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One host path that should be in the tree.

    lack: the sentence where it is not there. target: another path in the tree.
    explicit: a manifest line names this very path. recurses: a folder comes with what is below.
    is_inspected: its own libraries and bundles come too.
    is_found: it was met in a folder or a package's list, so a link may lead nowhere.
    """

    path: str
    reason: Reason
    absence: Absence
    lack: str
    target: str | None = None
    explicit: bool = False
    recurses: bool = True
    is_inspected: bool = True
    is_found: bool = False
    override: Override | None = None


@dataclass(slots=True)
class Found:
    """One path of the tree, as gathered: `source` is the canonical host path.

    target: of a link that the host lacks and the tree needs.
    """

    path: str
    kind: Kind
    source: str
    stat: os.stat_result
    reason: Reason
    explicit: bool
    target: str | None = None
    overrides: list[tuple[bool, Override]] = field(default_factory=list)

    @property
    def override(self) -> Override:
        """All of them in one: a line that names this very path holds over one that names a folder."""
        ranked = sorted(self.overrides, key=lambda pair: (pair[0], pair[1].line))
        return reduce(lambda earlier, pair: pair[1].over(earlier), ranked, Override())


class Gathering:
    """The worklist; what it found, what is wrong and what a user should know are read from it."""

    def __init__(self, sysroot: Sysroot, closure: Callable[[str], Closure | None]) -> None:
        self.found: dict[str, Found] = {}
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.absent: list[str] = []
        self.renamed: dict[str, str] = {}
        self._sysroot = sysroot
        self._closure = closure
        self._queue: deque[Want] = deque()
        self._taken: set[tuple[str, str | None]] = set()
        self._inspected: set[tuple[str, ...]] = set()

    def want(self, want: Want) -> None:
        """Put one more want at the end; a want that was met before costs nothing."""
        if want.explicit or want.override or (want.path, want.target) not in self._taken:
            self._taken.add((want.path, want.target))
            self._queue.append(want)

    def run(self) -> None:
        """Follow every want, and what those want, to the end; then the folders they lie in."""
        while self._queue:
            self._take(self._queue.popleft())
        self._add_parents()
        self._add_merged()

    def fail(self, origin: Origin, message: str) -> None:
        problem = Problem(origin.file, origin.line, message)
        if problem not in self.problems:
            self.problems.append(problem)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    def lacking(self, absence: Absence, origin: Origin, message: str) -> None:
        """Say that something is not there, as loudly as it matters."""
        if absence is Absence.PROBLEM:
            self.fail(origin, message)
        elif absence is Absence.WARNING and (said := f"{origin}: {message}") not in self.absent:
            self.absent.append(said)

    def find_program(self, name: str) -> str | None:
        """The first executable regular file of that name in PATH."""
        return next((path for folder in PATH if self.is_program(path := f"{folder}/{name}")), None)

    def is_program(self, path: str) -> bool:
        found = self._sysroot.stat(path)
        return found is not None and stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 != 0

    def _take(self, want: Want) -> None:
        walk = self._sysroot.walk(want.path)
        if walk.stat is None:
            if want.is_found and walk.chain:
                self._add_links(want, walk)
            else:
                self._say_lack(want, walk)
            return
        kind = _kind(walk.stat)
        if want.target is not None and want.is_found and walk.chain:
            self._add_renamed_link(want, walk.chain[0])
        elif kind is Kind.FILE:
            self._add_file(want, walk, walk.stat)
        elif kind is Kind.DIRECTORY:
            self._add_folder(want, walk, walk.stat)
        else:
            self._say_special(want, walk, kind)

    def _say_lack(self, want: Want, walk: Walk) -> None:
        cause = "" if walk.fault == ABSENT else f": {walk.fault}"
        self.lacking(want.absence, want.reason.origin, want.lack + cause)

    def _say_special(self, want: Want, walk: Walk, kind: Kind) -> None:
        message = f"{walk.path} is a {kind.value}, and only files, folders and links are copied"
        if want.explicit and want.absence is Absence.PROBLEM:
            hint = "; declare it under `devices`" if kind is Kind.DEVICE else ""
            self.fail(want.reason.origin, message + hint)
        else:
            self.warn(f"{want.reason.origin}: {message}: left out")

    def _add_file(self, want: Want, walk: Walk, status: os.stat_result) -> None:
        named = self._name(want, walk)
        self._add(named, walk.path, Kind.FILE, status)
        if want.is_inspected:
            self._inspect(named, walk, status)

    def _add_folder(self, want: Want, walk: Walk, status: os.stat_result) -> None:
        if walk.path == "/" and want.target is None:
            self.fail(want.reason.origin, "cannot copy /: a tree holds only what is named")
            return
        named = self._name(want, walk)
        self._add(named, walk.path, Kind.DIRECTORY, status)
        if want.recurses:
            for name in self._sysroot.names(walk.path):
                self._want_below(named, walk.path, name, status.st_dev)

    def _want_below(self, want: Want, folder: str, name: str, device: int) -> None:
        path = f"{folder.rstrip('/')}/{name}"
        found = self._sysroot.lstat(path)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode) and found.st_dev != device:
            self.warn(f"{want.reason.origin}: {path} is another file system: left out")
            return
        self.want(
            replace(
                want,
                path=path,
                absence=Absence.WARNING,
                target=None if want.target is None else f"{want.target}/{name}",
                explicit=False,
                # A link to a folder brings the link, not all that lies behind it.
                recurses=stat.S_ISDIR(found.st_mode),
                is_found=True,
            )
        )

    def _add_renamed_link(self, want: Want, link: str) -> None:
        """A link below a folder that gets another place goes along as it is."""
        status = self._sysroot.lstat(link)
        if status is not None:
            self._add(replace(want, override=None), link, Kind.SYMLINK, status)
        target = self._sysroot.target(link)
        if target.startswith("/"):
            self._want_drawn(target, Reason("link", want.target, want.reason.origin))

    def _name(self, want: Want, walk: Walk) -> Want:
        """The want of the final path itself: why, if links led there, and where in the tree."""
        if want.target is None:
            by = self._add_links(want, walk)
            if by is not None:
                reason = Reason("link", by, want.reason.origin)
                return replace(want, reason=reason, explicit=False, is_found=False)
            return want
        target = self._place(want)
        self.renamed.setdefault(walk.path, target)
        return replace(want, target=target)

    def _place(self, want: Want) -> str:
        """The target's canonical path, where its top folder is a link of merged /usr."""
        target = want.target or ""
        top, slash, rest = target[1:].partition("/")
        walk = self._sysroot.walk(f"/{top}")
        if not slash or not walk.chain or walk.stat is None:
            return target
        self._add_links(replace(want, path=f"/{top}", explicit=False), walk)
        return f"{walk.path}/{rest}"

    def _add_links(self, want: Want, walk: Walk) -> str | None:
        """Take in the links on the way. The one that was named has the want's own reason.

        Returns the link that leads to the final path, or None where the path itself was named.
        """
        named = walk.chain[0] if walk.chain else walk.path
        before: str | None = None
        for link in walk.links:
            if link == named:
                step = want
            else:
                reason = Reason("link", before or named, want.reason.origin)
                step = replace(want, reason=reason, explicit=False)
            status = self._sysroot.lstat(link)
            if status is not None:
                self._add(replace(step, target=None, override=None), link, Kind.SYMLINK, status)
            if link in walk.chain:
                before = link
        return before

    def _add(self, want: Want, source: str, kind: Kind, status: os.stat_result) -> None:
        path = want.target or source
        known = self.found.get(path)
        if known is None:
            known = Found(path, kind, source, status, want.reason, want.explicit)
            self.found[path] = known
        elif want.explicit and not known.explicit:
            known.reason, known.explicit = want.reason, True
            known.kind, known.source, known.stat = kind, source, status
        if want.override is not None:
            known.overrides.append((want.explicit, want.override))

    def _inspect(self, want: Want, walk: Walk, status: os.stat_result) -> None:
        """Want what a program or library needs besides itself."""
        is_executable = status.st_mode & 0o111 != 0
        if not is_executable and ".so" not in walk.path.rpartition("/")[2]:
            return
        names = (*walk.chain, walk.path) if walk.chain else (want.path, walk.path)
        called = tuple(dict.fromkeys(name.rpartition("/")[2] for name in names))
        if (walk.path, *called) in self._inspected:
            return
        self._inspected.add((walk.path, *called))
        head = self._sysroot.head(walk.path, 256)
        if head.startswith(b"\x7fELF"):
            self._inspect_elf(want, walk.path, called)
        elif is_executable and head.startswith(b"#!"):
            self._inspect_script(want, walk.path, called, head)

    def _inspect_elf(self, want: Want, path: str, called: tuple[str, ...]) -> None:
        try:
            closure = self._closure(path)
        except HostLacks as error:
            self.lacking(want.absence, want.reason.origin, error.message)
            return
        if closure is None:
            return
        for library in (*closure.libraries, *closure.extras):
            reason = Reason(library.rule, self._sysroot.walk(library.by).path, want.reason.origin)
            self._want_drawn(library.path, reason, is_inspected=False)
        self._add_bridges(want, closure)
        for missing in closure.missing:
            if missing.required:
                message = f"{missing.by} needs {missing.name}, and the host has no such library"
                absence = want.absence if want.absence is Absence.PROBLEM else Absence.WARNING
                self.lacking(absence, want.reason.origin, message)
        for warning in closure.warnings:
            self.warn(warning)
        libraries = tuple((library.name, library.path) for library in closure.libraries)
        self._draw(want, Program(path, called, libraries))

    def _add_bridges(self, want: Want, closure: Closure) -> None:
        """Links for libraries that only ld.so.cache leads to: a tree has no cache."""
        libc = next((lib.path for lib in closure.libraries if lib.name == "libc.so.6"), None)
        if libc is None:
            return
        folder = self._sysroot.walk(libc).path.rpartition("/")[0]
        variants = f"{folder}/glibc-hwcaps/"
        for library in closure.libraries:
            walk = self._sysroot.walk(library.path.rpartition("/")[0])
            link = f"{folder}/{library.name}"
            is_built_in = walk.path in (folder, folder.rpartition("/")[0])
            if is_built_in or walk.path.startswith(variants) or walk.stat is None:
                continue
            cached = any(line.path == library.path for line in self._cache.find(library.name))
            if cached and link not in self.found and self._sysroot.lstat(link) is None:
                by = self._sysroot.walk(library.by).path
                self.found[link] = Found(
                    link,
                    Kind.SYMLINK,
                    link,
                    walk.stat,
                    Reason("ld.so.cache", by, want.reason.origin),
                    explicit=False,
                    target=library.path,
                )

    @cached_property
    def _cache(self) -> Cache:
        return Cache(self._sysroot.read(CACHE) or b"")

    def _inspect_script(self, want: Want, path: str, called: tuple[str, ...], head: bytes) -> None:
        script = interpreter(head)
        if script is None:
            return
        self._want_run(want, path, script.path, "#! interpreter")
        if script.program is not None:
            found = self.find_program(script.program) or script.program
            self._want_run(want, path, found, "#! env")
        self._draw(want, Program(path, called, interpreter=script))

    def _want_run(self, want: Want, script: str, program: str, rule: str) -> None:
        self.want(
            Want(
                path=program,
                reason=Reason(rule, script, want.reason.origin),
                absence=want.absence if want.absence is Absence.PROBLEM else Absence.WARNING,
                lack=f"{script} is run by {program}, which the host does not have",
            )
        )

    def _draw(self, want: Want, program: Program) -> None:
        """Apply every rule to a program."""
        for rule in RULES:
            trigger = rule.trigger(program)
            if trigger is None:
                continue
            text = f"{rule.name} bundle: {trigger}"
            for wish in rule.wishes(self._sysroot, program):
                by = self._sysroot.walk(wish.by).path
                absence = Absence.WARNING if wish.is_needed else Absence.SILENT
                self._want_drawn(
                    wish.path,
                    Reason(text, by, want.reason.origin),
                    absence=absence,
                    is_inspected=wish.is_program,
                )

    def _want_drawn(
        self,
        path: str,
        reason: Reason,
        *,
        absence: Absence = Absence.SILENT,
        is_inspected: bool = True,
    ) -> None:
        if (path, None) not in self._taken:
            lack = f"{reason.by} names {path}, which the host does not have"
            self.want(
                Want(
                    path=path, reason=reason, absence=absence, lack=lack, is_inspected=is_inspected
                )
            )

    def _add_parents(self) -> None:
        """The folders above, with the modes and owners that the host gives them."""
        for found in list(self.found.values()):
            path = found.path
            if path != found.source:
                continue
            while (path := path.rpartition("/")[0]) and path not in self.found:
                status = self._sysroot.lstat(path)
                if status is not None:
                    reason = Reason("parent folder", found.path, found.reason.origin)
                    self.found[path] = Found(
                        path, Kind.DIRECTORY, path, status, reason, explicit=False
                    )

    def _add_merged(self) -> None:
        """Of merged /usr the old names too: /bin/sh is what system(3) starts."""
        for old in _MERGED:
            walk = self._sysroot.walk(old)
            known = self.found.get(walk.path)
            status = self._sysroot.lstat(old)
            if status is not None and walk.chain and known is not None:
                reason = Reason("merged /usr", walk.path, known.reason.origin)
                link = Found(old, Kind.SYMLINK, old, status, reason, explicit=False)
                self.found.setdefault(old, link)


def _kind(status: os.stat_result) -> Kind:
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFREG:
            return Kind.FILE
        case stat.S_IFDIR:
            return Kind.DIRECTORY
        case stat.S_IFSOCK:
            return Kind.SOCKET
        case stat.S_IFIFO:
            return Kind.FIFO
        case _:
            return Kind.DEVICE
