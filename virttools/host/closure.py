"""Finds the libraries that a program loads, by ld.so's own rules and without running anything.

The set equals what ldd prints for the real path of a native file; `extras` is what ldd can't know.
"""

import os

from virttools.errors import HostLacks
from virttools.host import elf as headers
from virttools.host import ldso
from virttools.host.binaries import Binaries, RootedBinaries
from virttools.host.elf import Elf
from virttools.host.search import Edge, Node, Search


class _Value:
    """Equality and text of what follows; frozen dataclasses would double the time of a closure."""

    __slots__: tuple[str, ...] = ()

    def _parts(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in type(self).__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        parts = zip(type(self).__slots__, self._parts(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={part!r}' for name, part in parts)})"


class Library(_Value):
    """path: as ldd prints it, inside the root. name: asked for under. by: the path of who asked.

    rule: "DT_NEEDED libc.so.6", "PT_INTERP", "DT_AUDIT …", ".note.dlopen … (recommended)",
    "glibc-hwcaps baseline of …" or "ldd".
    """

    __slots__ = ("by", "name", "path", "rule")

    def __init__(self, path: str, name: str, by: str, rule: str) -> None:
        self.path = path
        self.name = name
        self.by = by
        self.rule = rule


class Missing(_Value):
    """A library that nobody has. is required: without it the program does not start."""

    __slots__ = ("by", "name", "required")

    def __init__(self, name: str, by: str, *, required: bool) -> None:
        self.name = name
        self.by = by
        self.required = required


class Closure(_Value):
    """What one ELF file loads.

    path: the file, without links. libraries: what ldd lists, the loader too, sorted by path.
    extras: also wanted: baselines of glibc-hwcaps variants, .note.dlopen, auditors, a loader that
    no library names. warnings: sentences for the user.
    """

    __slots__ = ("extras", "libraries", "missing", "path", "warnings")

    def __init__(
        self,
        path: str,
        libraries: tuple[Library, ...] = (),
        extras: tuple[Library, ...] = (),
        missing: tuple[Missing, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.libraries = libraries
        self.extras = extras
        self.missing = missing
        self.warnings = warnings


class Resolver:
    """Closures of the files of one root, memoised for this object's life.

    All paths are as seen inside the root; links in it never lead out of it.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.realpath(root)
        self._binaries = Binaries() if self.root == "/" else RootedBinaries(self.root)
        self._searches: dict[tuple[tuple[int, int, str], str | None, bool], Search] = {}
        self._cache: ldso.Cache | None = None

    def elf(self, path: str) -> Elf | None:
        """The headers of a file; None where it is none of ours. Raises HostLacks: unreadable."""
        found = self._binaries.elf(path)
        if found is None:
            try:
                return self._binaries.read_elf(path)
            except (OSError, ValueError) as error:
                raise _unreadable(path, error) from error
        return found

    def imports(self, path: str) -> frozenset[str]:
        """The symbols that an ELF file takes from its libraries. Raises HostLacks: unreadable."""
        try:
            fd = self._binaries.open(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        try:
            return headers.imports(fd)
        finally:
            os.close(fd)

    def glibc_version(self, path: str) -> tuple[int, int] | None:
        """The release of glibc that the libc.so.6 at `path` is of, (2, 36); None: it is not one."""
        try:
            fd = self._binaries.open(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        try:
            return headers.glibc_version(fd)
        finally:
            os.close(fd)

    def closure(self, path: str) -> Closure | None:
        """What the file loads; None where it is no ELF file. Raises HostLacks: unreadable."""
        try:
            real = self._binaries.real(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        elf = self.elf(real)
        if elf is None:
            return None
        if not (elf.needed or elf.interp or elf.audits or elf.filters or elf.dlopens):
            damage = (f"{real} is damaged: {elf.damage}",) if elf.damage else ()
            return Closure(real, warnings=damage)
        return _Walk(self._search(elf), real, elf).closure()

    def _search(self, elf: Elf) -> Search:
        """The search for programs of that class, machine and loader."""
        wants_musl = elf.interp is None and any(map(ldso.is_musl_libc, elf.needed))
        key = (elf.abi, elf.interp, wants_musl)
        found = self._searches.get(key)
        if found is None:
            loader = self._loader(elf, wants_musl=wants_musl)
            found = Search(self._binaries, elf, loader, self._cached(), self._configured())
            self._searches[key] = found
        return found

    def _loader(self, elf: Elf, *, wants_musl: bool) -> str | None:
        """PT_INTERP, or the loader of this root that fits the file."""
        standard = ldso.musl_loaders_of if wants_musl else ldso.loaders_of
        for path in (elf.interp, *standard(elf.machine, elf.bits)):
            loader = self._binaries.elf(path) if path else None
            if loader is not None and loader.abi == elf.abi:
                return path
        return None

    def _cached(self) -> ldso.Cache:
        if self._cache is None:
            self._cache = ldso.Cache(self._binaries.content(ldso.CACHE))
        return self._cache

    def _configured(self) -> tuple[str, ...]:
        """The folders of ld.so.conf, for a root where ldconfig has yet to run.

        On the host itself ld.so would not see them either without its cache.
        """
        if self.root == "/" or not self._cached().is_empty():
            return ()
        from virttools.host.sysroot import Sysroot

        return ldso.configured(Sysroot(self.root))


_Visit = tuple[Node, tuple[str, ...]]
"""A loaded file, and the RPATH folders of its own and of those that led to it."""


class _Walk:
    """The libraries of one file, breadth first, as ld.so loads them.

    names: what is loaded answers to these. files: (device, inode) of what is loaded.
    """

    def __init__(self, search: Search, path: str, elf: Elf) -> None:
        self._search = search
        self._main = search.node(path) or search.new_node(path, elf)
        self._names: set[str | None] = {elf.soname}
        self._files = {elf.file}
        self._specials: list[_Visit] = []
        self._baselines: list[tuple[Library, _Visit]] = []
        self._aliases: list[Library] = []
        self._missing: dict[str, Missing] = {}
        self._warnings: list[str] = []

    def closure(self) -> Closure:
        main = self._main
        visit = (main, main.rpath)
        libraries: list[Library] = []
        extras: list[Library] = []
        if main.is_special:
            self._specials.append(visit)
        self._spread([visit], libraries, required=True)
        self._add_loader(extras)
        while self._specials or self._baselines:
            if self._specials:
                self._add_special(self._specials.pop(0), extras)
            else:
                self._add_baseline(*self._baselines.pop(0), extras)
        listed = {main.path, *(library.path for library in (*libraries, *extras))}
        extras += {one.path: one for one in self._aliases if one.path not in listed}.values()
        libraries.sort(key=_path)
        extras.sort(key=_path)
        missing = tuple(self._missing.values())
        return Closure(main.path, tuple(libraries), tuple(extras), missing, tuple(self._warnings))

    def _spread(self, visits: list[_Visit], into: list[Library], *, required: bool) -> None:
        """Load the libraries of `visits`, and theirs."""
        names, files = self._names, self._files
        for node, inherited in visits:  # grows as it is walked
            edges = node.edges.get(inherited)
            if edges is None:
                edges = node.edges[inherited] = self._edges(node, inherited)
            for name, found, tag in edges:
                if name in names:
                    continue
                if found is None:
                    self._miss(name, node, required=required and tag != "DT_AUXILIARY")
                    continue
                names.add(name)
                target = found.node
                if target.file in files:
                    # ld.so has the file, but only because it was found under this name too.
                    self._aliases.append(Library(target.path, name, node.path, f"{tag} {name}"))
                    continue
                files.add(target.file)
                names.add(target.soname)
                library = Library(target.path, name, node.path, f"{tag} {name}")
                into.append(library)
                visit = (target, target.rpath + inherited if target.rpath else inherited)
                visits.append(visit)
                if target.is_special:
                    self._specials.append(visit)
                if found.baseline is not None:
                    self._baselines.append((library, (found.baseline, inherited)))

    def _edges(self, node: Node, inherited: tuple[str, ...]) -> list[Edge]:
        """What the file asks for, and what answers."""
        wanted = [("DT_NEEDED", name) for name in node.elf.needed]
        edges: list[Edge] = []
        for tag, text in (*wanted, *node.elf.filters):
            name = self._search.expand(text, node.path)
            edges.append((name, self._search.find(node, inherited, name), tag))
        return edges

    def _miss(self, name: str, by: Node, *, required: bool) -> None:
        self._missing.setdefault(name, Missing(name, by.path, required=required))

    def _add_loader(self, extras: list[Library]) -> None:
        """The kernel wants PT_INTERP even where no library names it, and ldd then doesn't."""
        interp, loader = self._main.elf.interp, self._search.loader
        if interp is None:
            return
        if loader is None or loader.path != interp:
            self._miss(interp, self._main, required=True)
        elif loader.file not in self._files:
            self._files.add(loader.file)
            extras.append(Library(interp, interp, self._main.path, "PT_INTERP"))

    def _add_special(self, visit: _Visit, extras: list[Library]) -> None:
        """What a file wants besides DT_NEEDED, and what its user should know."""
        node = visit[0]
        self._warnings += _warnings(node)
        for tag, text in node.elf.audits:
            for name in self._search.expand(text, node.path).split(":"):
                self._add_extra(visit, (name,), f"{tag} {name}", extras, required=False)
        for dlopen in node.elf.dlopens:
            what = " ".join(filter(None, (".note.dlopen", dlopen.feature, f"({dlopen.priority})")))
            required = dlopen.priority == "required"
            self._add_extra(visit, dlopen.sonames, what, extras, required=required)

    def _add_extra(
        self,
        visit: _Visit,
        names: tuple[str, ...],
        rule: str,
        extras: list[Library],
        *,
        required: bool,
    ) -> None:
        """Load the first of the names that is there already, or found."""
        node, inherited = visit
        for name in names:
            if name in self._names:
                return
            found = self._search.find(node, inherited, name)
            if found is None:
                continue
            target = found.node
            self._names |= {name, target.soname}
            if target.file not in self._files:
                self._files.add(target.file)
                extras.append(Library(target.path, name, node.path, rule))
                self._spread([(target, target.rpath + inherited)], extras, required=required)
            return
        if names:
            self._miss(names[0], node, required=required)

    def _add_baseline(self, chosen: Library, visit: _Visit, extras: list[Library]) -> None:
        """The variant for any processor: the tree may move to a lesser one."""
        node, inherited = visit
        if node.file in self._files:
            return
        self._files.add(node.file)
        rule = f"glibc-hwcaps baseline of {chosen.path}"
        extras.append(Library(node.path, chosen.name, chosen.by, rule))
        self._spread([(node, node.rpath + inherited)], extras, required=False)


def _path(library: Library) -> str:
    return library.path


def _warnings(node: Node) -> list[str]:
    """Sentences about one file."""
    found = [f"{node.path} is damaged: {node.elf.damage}"] if node.elf.damage else []
    found += [
        f"{node.path} has ld.so run {name} as its auditor ({tag})" for tag, name in node.elf.audits
    ]
    found += [f"{node.path} is a filter for {name} ({tag})" for tag, name in node.elf.filters]
    if node.has_relative:
        found.append(f"{node.path} has a relative RPATH or RUNPATH folder, which is left out")
    return found


def _unreadable(path: str, error: OSError | ValueError) -> HostLacks:
    cause = error.strerror if isinstance(error, OSError) else str(error)
    return HostLacks(f"cannot read {path}: {(cause or str(error)).lower()}")


def ldd(path: str) -> Closure | None:
    """As Resolver("/").closure, from ld.so itself: for files that only trusted people can write.

    The loader is this machine's own and not the file's; yet it runs what the file names as its
    auditor (DT_AUDIT). Raises HostLacks where the file is unreadable or for another machine.
    """
    from virttools.host.program import call

    resolver = Resolver()
    plain = resolver.closure(path)
    elf = None if plain is None else resolver.elf(plain.path)
    if plain is None or elf is None:
        return None
    if not elf.is_dynamic:
        return Closure(plain.path)
    loader = _trusted_loader(elf)
    if loader is None:
        raise HostLacks(
            f"cannot list the libraries of {plain.path}: this machine has no loader for it",
            hint="the resolver `own` reads files of any machine",
        )
    result = call([loader, "--list", plain.path])
    if result.status:
        cause = os.fsdecode(result.stderr).strip().rpartition(": ")[2]
        raise HostLacks(f"cannot list the libraries of {plain.path}: {cause}")
    return _listed(plain.path, os.fsdecode(result.stdout))


def _trusted_loader(elf: Elf) -> str | None:
    """The loader of this machine for such files, at its standard place."""
    if not ldso.is_native(elf.machine):
        return None
    is_musl = any(map(ldso.is_musl_libc, elf.needed)) or ldso.is_musl(elf.interp or "")
    standard = ldso.musl_loaders_of if is_musl else ldso.loaders_of
    return next((path for path in standard(elf.machine, elf.bits) if os.path.isfile(path)), None)


def _listed(path: str, text: str) -> Closure:
    """What `ld.so --list` printed: lines `name => path (address)`, `path (address)`, not found."""
    libraries, missing = [], []
    for line in text.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and rest.startswith("not found"):
            missing.append(Missing(name, path, required=True))
            continue
        found = (rest if arrow else name).rpartition(" (0x")[0]
        if found.startswith("/"):
            libraries.append(Library(found, name if arrow else found, path, "ldd"))
    libraries.sort(key=_path)
    return Closure(path, tuple(libraries), missing=tuple(missing))
