"""Reads which package a file of the host came from, and which files a package has: dpkg, or rpm."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from virttools.host import licences, program
from virttools.host.facts import Details
from virttools.host.sysroot import Sysroot

_INFO = "/var/lib/dpkg/info"
_STATUS = "/var/lib/dpkg/status"
_DIVERSIONS = "/var/lib/dpkg/diversions"
_RPM = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
# What dpkg's lists may still have at the top, and merged /usr has below /usr.
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libo32")
_LEFT_OUT = tuple(
    f"/usr/share/{name}" for name in ("doc", "man", "info", "lintian", "locale", "bug", "doc-base")
)
_CONFFILE = re.compile(rb" (/.+) ([0-9a-f]{32})(?: obsolete| remove-on-upgrade)*")
_CONFFILES = re.compile(rb"^Conffiles:\n((?: .*\n?)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ownership:
    """md5: hex, as the package database has it for this path, or None."""

    package: str
    version: str
    md5: str | None


class Packages:
    """The package database of one host, read once and only where asked."""

    def __init__(self, sysroot: Sysroot, *, rpm: str = "/usr/bin/rpm") -> None:
        self._sysroot = sysroot
        self._database: _Dpkg | _Rpm | None = None
        if sysroot.is_directory(_INFO):
            self._database = _Dpkg(sysroot)
        elif any(map(sysroot.is_directory, _RPM)) and os.access(rpm, os.X_OK):
            self._database = _Rpm(sysroot, rpm)

    def files(self, name: str) -> tuple[str, ...] | None:
        """Its paths, folders too, less documentation; None where it is not installed."""
        found = None if self._database is None else self._database.files(name)
        if found is None:
            return None
        return tuple(path for path in found if path not in ("/", "/.") and not _is_left_out(path))

    def owners(self, paths: Iterable[str]) -> dict[str, Ownership]:
        """Who owns which of these canonical paths."""
        wanted = frozenset(paths)
        return {} if self._database is None or not wanted else self._database.owners(wanted)

    def details(self, name: str) -> Details | None:
        """More of a package; None where it is not installed."""
        return None if self._database is None else self._database.details(name)

    def names(self) -> tuple[str, ...]:
        """The names of all installed packages, sorted."""
        return () if self._database is None else self._database.names()

    def named(self, name: str) -> tuple[str, ...]:
        """The paths of all packages that end in this name: where an unfound program may be."""
        return () if self._database is None else self._database.named(name)


def _is_left_out(path: str) -> bool:
    return path.startswith(_LEFT_OUT) and any(
        path == folder or path.startswith(folder + "/") for folder in _LEFT_OUT
    )


class _Dpkg:
    """The database as dpkg keeps it: for each package a list of paths, one of checksums, status."""

    def __init__(self, sysroot: Sysroot) -> None:
        self._sysroot = sysroot
        self._info = sysroot.walk(_INFO).path
        self._instances = tuple(n[:-5] for n in sysroot.names(_INFO) if n.endswith(".list"))

    def files(self, name: str) -> tuple[str, ...] | None:
        listed = self._instance(name)
        if listed is None:
            return None
        return tuple(os.fsdecode(line) for line in self._list(listed).split(b"\n") if line)

    def _instance(self, name: str) -> str | None:
        """libc6 is listed as libc6:amd64, being Multi-Arch: same; our own architecture first."""
        own = _field(self._stanzas.get("dpkg", b""), b"Architecture")
        others = [found for found in self._instances if found.startswith(f"{name}:")]
        for found in (name, f"{name}:{own}", *others):
            if found in self._instances:
                return found
        return None

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({name.partition(":")[0] for name in self._instances}))

    def details(self, name: str) -> Details | None:
        instance = self._instance(name)
        if instance is None:
            return None
        stanza = self._stanzas.get(instance, b"")
        conffiles = _CONFFILES.search(stanza)
        sums = self._read(f"{instance}.md5sums").count(b"\n")
        copyright_text = self._sysroot.read(f"/usr/share/doc/{name}/copyright") or b""
        found = licences.of_debian(copyright_text.decode(errors="replace"))
        return Details(
            version=_field(stanza, b"Version"),
            architecture=_field(stanza, b"Architecture"),
            maintainer=_field(stanza, b"Maintainer"),
            source=_field(stanza, b"Source").partition(" ")[0] or name,
            files=sums + (conffiles[1].count(b"\n") if conffiles else 0),
            licence=found.expression,
            licence_words=found.words,
            kind="deb",
        )

    def named(self, name: str) -> tuple[str, ...]:
        ending = re.compile(rb"^/.*/" + re.escape(os.fsencode(name)) + rb"$", re.MULTILINE)
        found: set[str] = set()
        for instance in self._instances:
            found.update(os.fsdecode(path) for path in ending.findall(self._list(instance)))
        return tuple(sorted(path for path in found if not _is_left_out(path)))

    def owners(self, wanted: frozenset[str]) -> dict[str, Ownership]:
        sought = frozenset(self._listed_names(wanted))
        found: dict[str, Ownership] = {}
        for instance in self._instances:
            hits = sought.intersection(self._list(instance).split(b"\n"))
            if hits:
                self._claim(found, instance, hits)
        return {path: owner for path, owner in found.items() if path in wanted}

    def _claim(self, found: dict[str, Ownership], instance: str, hits: frozenset[bytes]) -> None:
        """Note what this package owns of `hits`; the first package that lists a path keeps it."""
        package = instance.partition(":")[0]
        stanza = self._stanzas.get(instance, b"")
        version = _field(stanza, b"Version")
        sums = self._checksums(instance, stanza, hits)
        for hit in hits:
            place = self._merged(os.fsdecode(hit))
            diverted = self._diversions.get(place)
            if diverted is not None and diverted[1] != package:
                place = diverted[0]
            if place not in found:
                found[place] = Ownership(package, version, sums.get(hit))

    def _checksums(self, instance: str, stanza: bytes, hits: frozenset[bytes]) -> dict[bytes, str]:
        found = dict(_sums(self._read(f"{instance}.md5sums"), hits))
        conffiles = _CONFFILES.search(stanza)
        for line in conffiles[1].split(b"\n") if conffiles else ():
            # A path may hold blanks; "newconffile" may stand in place of the sum.
            match = _CONFFILE.fullmatch(line)
            if match:
                found[match[1]] = match[2].decode()
        return found

    def _listed_names(self, wanted: frozenset[str]) -> Iterator[bytes]:
        """How the lists may have these paths: before /usr was merged, and before a diversion."""
        origins = [path for path, (moved, _) in self._diversions.items() if moved in wanted]
        for path in (*wanted, *origins):
            yield os.fsencode(path)
            if path.startswith(self._merged_folders):
                yield os.fsencode(path[4:])

    @cached_property
    def _merged_folders(self) -> tuple[str, ...]:
        """Those of /usr/bin/, /usr/lib/ … that the top-level names lead to."""
        return tuple(
            f"/usr{name}/" for name in _MERGED if self._sysroot.walk(name).path == f"/usr{name}"
        )

    def _merged(self, path: str) -> str:
        return f"/usr{path}" if f"/usr{path}".startswith(self._merged_folders) else path

    @cached_property
    def _diversions(self) -> dict[str, tuple[str, str]]:
        """path: (where other packages' file went, the package whose file stays), dpkg-divert(1)."""
        lines = os.fsdecode(self._sysroot.read(_DIVERSIONS) or b"").splitlines()
        triples = zip(lines[::3], lines[1::3], lines[2::3], strict=False)
        return {self._merged(path): (self._merged(moved), by) for path, moved, by in triples}

    @cached_property
    def _stanzas(self) -> dict[str, bytes]:
        """The paragraphs of status, by package and by package:architecture."""
        found: dict[str, bytes] = {}
        for stanza in (self._sysroot.read(_STATUS) or b"").split(b"\n\n"):
            name = _field(stanza, b"Package")
            found.setdefault(name, stanza)
            found[f"{name}:{_field(stanza, b'Architecture')}"] = stanza
        return found

    def _list(self, instance: str) -> bytes:
        return self._read(f"{instance}.list")

    def _read(self, name: str) -> bytes:
        """One of 700 small files: no look for links first, no buffers."""
        fd = self._sysroot.open(f"{self._info}/{name}")
        if fd is None:
            return b""
        try:
            return os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)


def _sums(text: bytes, hits: frozenset[bytes]) -> Iterator[tuple[bytes, str]]:
    """The MD5 of each path of `hits`, from lines like "0123…ef  usr/bin/x"."""
    if len(hits) > 20:
        for line in text.split(b"\n"):
            if b"/" + line[34:] in hits:
                yield b"/" + line[34:], line[:32].decode()
        return
    for hit in hits:
        end = text.find(b"  " + hit[1:] + b"\n")
        if end >= 32:
            yield hit, text[end - 32 : end].decode()


def _field(stanza: bytes, name: bytes) -> str:
    start = 0 if stanza.startswith(name + b": ") else stanza.find(b"\n" + name + b": ") + 1
    if start == 0 and not stanza.startswith(name + b": "):
        return ""
    start += len(name) + 2
    end = stanza.find(b"\n", start)
    return stanza[start : end if end >= 0 else None].decode(errors="replace").strip()


class _Rpm:
    """The database as rpm tells of it; its checksums are not MD5 since 2009, so there are none."""

    def __init__(self, sysroot: Sysroot, rpm: str) -> None:
        root = sysroot.host("") or "/"
        self._argv = (rpm, "--root", root)

    def files(self, name: str) -> tuple[str, ...] | None:
        said = program.call([*self._argv, "--query", "--list", "--", name])
        if said.status != 0:
            return None
        lines = os.fsdecode(said.stdout).splitlines()
        return tuple(line for line in lines if line.startswith("/"))

    def details(self, name: str) -> Details | None:
        form = "%{EVR}\\n%{ARCH}\\n%{VENDOR}\\n%{SOURCERPM}\\n%{LICENSE}\\n"
        lines = self._query("--queryformat", form, "--", name)
        if len(lines) < 5:
            return None
        found = licences.of_words(lines[4])
        return Details(
            version=lines[0],
            architecture=lines[1],
            maintainer=lines[2],
            source=lines[3],
            files=None,
            licence=found.expression,
            licence_words=found.words,
            kind="rpm",
        )

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self._query("--all", "--queryformat", "%{NAME}\\n"))))

    def named(self, name: str) -> tuple[str, ...]:
        found = self._query("--all", "--list")
        return tuple(sorted({path for path in found if path.endswith(f"/{name}")}))

    def owners(self, wanted: frozenset[str]) -> dict[str, Ownership]:
        paths = sorted(wanted)
        form = "%{NAME} %{EVR}\\n"
        lines = self._query("--queryformat", form, "--file", "--", *paths)
        found: dict[str, Ownership] = {}
        # One line a path, an error sentence among them where nobody owns it.
        for path, line in zip(paths, lines, strict=False):
            name, _, version = line.partition(" ")
            if " " not in version:
                found[path] = Ownership(name, version, None)
        return found

    def _query(self, *arguments: str) -> list[str]:
        return os.fsdecode(program.call([*self._argv, "--query", *arguments]).stdout).splitlines()
