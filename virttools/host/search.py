"""Searches libraries for programs of one class, machine and loader, in ld.so's order.

Order: what the loader answers to itself, DT_RPATH or DT_RUNPATH, ld.so.cache, default folders.
"""

from virttools.host import ldso
from virttools.host.binaries import Binaries
from virttools.host.elf import EM_X86_64, Elf

_SHARED_OBJECTS = (2, 3)


Edge = tuple[str, "Found | None", str]
"""The name that a file asks for, what answers, and the tag that asks."""


class Node:
    """One file at one path, as loaded: $ORIGIN depends on the path.

    rpath, runpath: folders, tokens expanded; runpath is None without DT_RUNPATH.
    has_relative: some of those folders depend on who calls, and were left out.
    is_special: there is more to it than DT_NEEDED, or something to warn of.
    edges: what a walk remembers here about the file's own libraries, by inherited RPATH.
    """

    __slots__ = (
        "edges", "elf", "file", "has_relative", "is_special", "path", "rpath", "runpath", "soname",
    )  # fmt: skip

    def __init__(self, path: str, elf: Elf) -> None:
        self.path = path
        self.elf = elf
        self.file = elf.file
        self.soname = elf.soname
        self.rpath: tuple[str, ...] = ()
        self.runpath: tuple[str, ...] | None = None
        self.edges: dict[tuple[str, ...], list[Edge]] = {}
        self.has_relative = False
        self.is_special = bool(elf.audits or elf.filters or elf.dlopens or elf.damage)


class Found:
    """A library that was found; baseline: the same one for any processor, where it is a variant."""

    __slots__ = ("baseline", "node")

    def __init__(self, node: Node, baseline: Node | None = None) -> None:
        self.node = node
        self.baseline = baseline


class Search:
    """Memoised. loader_path: PT_INTERP or the standard place; None where the root has no loader.

    configured: the folders of ld.so.conf, where no ld.so.cache stands for them.
    """

    def __init__(
        self,
        binaries: Binaries,
        elf: Elf,
        loader_path: str | None,
        cache: ldso.Cache,
        configured: tuple[str, ...],
    ) -> None:
        self._binaries = binaries
        self._abi = elf.abi
        self._cache = cache
        self._configured = configured
        self._nodes: dict[str, Node | None] = {}
        self._prefixes: dict[str, tuple[str, ...]] = {}
        self._by_name: dict[tuple[str, bool], Found | None] = {}
        self._by_folders: dict[tuple[tuple[str, ...], str], Found | None] = {}
        self._built_in: ldso.Loader | None = None
        self._processor: ldso.Processor | None = None
        self.is_musl = loader_path is not None and ldso.is_musl(loader_path)
        self._loader_path = loader_path or ""
        self.loader = self.node(loader_path) if loader_path else None

    def node(self, path: str) -> Node | None:
        """The file at `path`; None where it is not one that such programs can load."""
        try:
            return self._nodes[path]
        except KeyError:
            pass
        elf = self._binaries.elf(path)
        usable = elf is not None and elf.abi == self._abi and elf.type in _SHARED_OBJECTS
        found = self.new_node(path, elf) if elf is not None and usable else None
        self._nodes[path] = found
        return found

    def new_node(self, path: str, elf: Elf) -> Node:
        node = Node(path, elf)
        if elf.rpath is not None:
            node.rpath = self._folders(elf.rpath, node)
        if elf.runpath is not None:
            node.runpath = self._folders(elf.runpath, node)
            if self.is_musl:  # which makes no difference between the two: both are inherited
                node.rpath, node.runpath = node.runpath, None
        if self.is_musl:
            node.soname = None
        return node

    def expand(self, text: str, path: str) -> str:
        """The text with its $ORIGIN, $LIB and $PLATFORM replaced, as it stands in the file `path`."""
        if "$" not in text:
            return text
        origin = path.rpartition("/")[0] or "/"
        if self.is_musl:
            return ldso.expand(text, origin, None, None)
        lib = self._loader().lib if "LIB" in text else None
        platform = self._machine().platform if "PLATFORM" in text else None
        return ldso.expand(text, origin, lib, platform)

    def _folders(self, text: str, node: Node) -> tuple[str, ...]:
        expanded = self.expand(text, node.path)
        if self.is_musl and "$" in expanded:  # which ignores the whole of it (fixup_rpath)
            return ()
        found = []
        for part in expanded.split(":"):
            if part.startswith("/"):
                found.append(part.rstrip("/"))
            else:
                node.has_relative = node.is_special = True
        return tuple(dict.fromkeys(found))

    def find(self, node: Node, inherited: tuple[str, ...], name: str) -> Found | None:
        """Where ld.so finds a library that `node` wants, given the RPATH folders down to it."""
        if self.loader is not None and self._is_loader(name, self.loader):
            return Found(self.loader)
        if "/" in name:
            target = self.node(name) if name.startswith("/") else None
            return None if target is None else Found(target)
        folders = inherited if node.runpath is None else node.runpath
        if folders:
            key = (folders, name)
            if key not in self._by_folders:
                self._by_folders[key] = self._in_folders(folders, name)
            found = self._by_folders[key]
            if found is not None:
                return found
        plain = (name, node.elf.has_nodeflib)
        if plain not in self._by_name:
            self._by_name[plain] = self._system(name, has_nodeflib=node.elf.has_nodeflib)
        return self._by_name[plain]

    def _is_loader(self, name: str, loader: Node) -> bool:
        """The loader itself answers to that name."""
        if name in (loader.elf.soname, loader.path):
            return True
        return self.is_musl and ldso.is_musl_itself(name)

    def _system(self, name: str, *, has_nodeflib: bool) -> Found | None:
        folders = () if has_nodeflib else self._configured
        return (
            self._cached(name, has_nodeflib=has_nodeflib)
            or (self._in_folders(folders, name) if folders else None)
            or (None if has_nodeflib else self._in_folders(self._loader().folders, name))
        )

    def _cached(self, name: str, *, has_nodeflib: bool) -> Found | None:
        """What ld.so.cache has: the best variant for this processor, and the plain file."""
        if self.is_musl:
            return None
        lines = self._cache.find(name)
        if has_nodeflib:
            folders = self._loader().folders
            lines = [line for line in lines if line.path.rpartition("/")[0] not in folders]
        plain = (self.node(line.path) for line in lines if not line.hwcap and not line.legacy)
        baseline = next((node for node in plain if node is not None), None)
        for path in self._variants(lines):
            node = self.node(path)
            if node is not None:
                return Found(node, baseline)
        return None if baseline is None else Found(baseline)

    def _variants(self, lines: list[ldso.Cached]) -> list[str]:
        """The paths of the lines that are for processors like this one, best first."""
        if not any(line.hwcap or line.legacy for line in lines):
            return []
        machine = self._machine()
        named = {line.hwcap: line.path for line in reversed(lines) if line.hwcap}
        found = [named[hwcap] for hwcap in machine.hwcaps if hwcap in named]
        if self._loader().has_legacy_hwcaps:
            bits = machine.legacy_bits
            found += [line.path for line in lines if line.legacy and not line.legacy & ~bits]
        return found

    def _in_folders(self, folders: tuple[str, ...], name: str) -> Found | None:
        for folder in folders:
            prefixes = self._prefixes.get(folder)
            if prefixes is None:
                prefixes = self._prefixes[folder] = self._subfolders(folder)
            for prefix in prefixes:
                node = self.node(prefix + name)
                if node is None:
                    continue
                if prefix is prefixes[-1]:
                    return Found(node)
                return Found(node, self.node(prefixes[-1] + name))
        return None

    def _subfolders(self, folder: str) -> tuple[str, ...]:
        """The folder as a prefix, after those below it that are for this processor."""
        has_folder = self._binaries.has_folder
        if not has_folder(folder or "/"):
            return ()
        found = []
        if not self.is_musl and has_folder(f"{folder}/glibc-hwcaps"):
            found = [f"glibc-hwcaps/{name}" for name in self._machine().hwcaps]
        if self._abi[:2] == (EM_X86_64, 64) and self._has_legacy(folder):
            found += self._machine().legacy
        here = [f"{folder}/{name}" for name in dict.fromkeys(found)]
        return (*(f"{path}/" for path in here if has_folder(path)), f"{folder}/")

    def _has_legacy(self, folder: str) -> bool:
        names = ("tls", "x86_64", "haswell", "avx512_1")
        has = any(self._binaries.has_folder(f"{folder}/{name}") for name in names)
        return has and self._loader().has_legacy_hwcaps

    def _loader(self) -> ldso.Loader:
        """What the loader has built in: read when a library is not where most are."""
        if self._built_in is None:
            path = self._loader_path
            if self.is_musl:
                file = ldso.musl_path_file(path)
                self._built_in = ldso.musl_loader(path, self._binaries.content(file))
            else:
                data = self._binaries.content(path) if path else b""
                self._built_in = ldso.glibc_loader(path, data, *self._abi[:2])
        return self._built_in

    def _machine(self) -> ldso.Processor:
        if self._processor is None:
            self._processor = ldso.processor(*self._abi[:2])
        return self._processor
