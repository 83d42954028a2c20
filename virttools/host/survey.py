"""Reads from a Manifest to Facts: all that the host has for it, or everything that it lacks."""

import difflib
import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from virttools.errors import HostLacks, UsageError
from virttools.host import accounts, closure, surroundings
from virttools.host.facts import Facts, HostEntry, Kind, Why
from virttools.host.gather import PATH, Absence, Found, Gathering, Override, Reason, Want
from virttools.host.packages import Ownership, Packages
from virttools.host.sysroot import Sysroot, is_glob
from virttools.manifest.model import Binary, File, Manifest, Origin, Package

_KEPT = ("security.capability", "system.posix_acl_access")
_UNWRITTEN = frozenset({"localtime"})
"""Names of `etc.skeleton` that no template stands behind."""


def survey(
    manifest: Manifest,
    *,
    root: str = "/",
    resolver: str = "own",
    template_text: Callable[[str], str],
) -> Facts:
    """What the host, or the file system below `root`, has for this manifest.

    resolver: "own", or "ldd" for ld.so's own word, which can run code of the files it looks at.
    Raises HostLacks with every missing program, file, package, library and template at once,
    UsageError where ld.so is to look at another root than this host's.
    """
    if resolver == "ldd" and os.path.realpath(root) != "/":
        raise UsageError(
            f"cannot ask ld.so about {root}: it knows this host only",
            hint="leave out --resolver ldd",
        )
    return _Survey(manifest, root, resolver, template_text).facts()


class _Survey:
    def __init__(
        self,
        manifest: Manifest,
        root: str,
        resolver: str,
        template_text: Callable[[str], str],
    ) -> None:
        self._manifest = manifest
        self._template_text = template_text
        self._sysroot = Sysroot(root)
        self._packages = Packages(self._sysroot)
        closures = closure.Resolver(root).closure if resolver == "own" else closure.ldd
        self._gathering = Gathering(self._sysroot, closures)
        self._whys: dict[Reason, Why] = {}
        self._zone = surroundings.timezone(self._sysroot)

    def facts(self) -> Facts:
        self._want_all()
        self._gathering.run()
        templates = self._templates()
        self._check()
        entries = self._entries()
        names = accounts.read(self._sysroot).of(
            (entry.uid for entry in entries), (entry.gid for entry in entries)
        )
        service = surroundings.name_service(self._sysroot)
        return Facts(
            entries=entries,
            user_names=names.users,
            group_names=names.groups,
            timezone=self._zone,
            nameservers=service.nameservers,
            search=service.search,
            templates=templates,
            warnings=tuple(self._gathering.warnings),
            absent=tuple(self._gathering.absent),
        )

    def _check(self) -> None:
        problems = sorted(self._gathering.problems, key=lambda found: (found.file, found.line))
        if problems:
            things = "1 thing" if len(problems) == 1 else f"{len(problems)} things"
            raise HostLacks(
                f"cannot find {things} that the manifest names",
                problems=tuple(problems),
                hint=self._remedy({(found.file, found.line) for found in problems}),
            )

    def _remedy(self, lines: set[tuple[str, int]]) -> str:
        """What to do about problems at these lines: Debian's packages, where the lines name them."""
        packages = {
            package
            for binary in self._manifest.binaries
            for package in binary.packages
            if (binary.origin.file, binary.origin.line) in lines
        }
        if packages:
            return f"on Debian: apt-get install {' '.join(sorted(packages))}"
        return "install what is missing, or mark it `optional = true`"

    def _want_all(self) -> None:
        for binary in self._manifest.binaries:
            self._want_binary(binary)
        for line, file in enumerate(self._manifest.files):
            self._want_file(file, Override(line, file.mode, file.owner, file.group))
        for package in self._manifest.packages:
            self._want_package(package)
        self._want_zone("UTC", Absence.SILENT)
        declared = self._manifest.etc.timezone
        if declared == "host":
            self._want_zone(self._zone, Absence.SILENT)
        elif declared != "UTC":
            self._want_zone(declared, Absence.PROBLEM)

    def _want_binary(self, binary: Binary) -> None:
        absence = _absence(binary.optional)
        if binary.name.startswith("/"):
            path: str | None = binary.name
            if self._sysroot.stat(binary.name) and not self._gathering.is_program(binary.name):
                message = f"{binary.name} is not an executable file"
                self._gathering.lacking(absence, binary.origin, message)
                return
        else:
            path = self._gathering.find_program(binary.name)
        if path is None:
            self._gathering.lacking(absence, binary.origin, self._no_program(binary.name))
            return
        self._gathering.want(
            Want(
                path=path,
                reason=Reason("binaries", None, binary.origin),
                absence=absence,
                lack=f"the host has no program {path}",
                explicit=True,
            )
        )

    def _no_program(self, name: str) -> str:
        """The sentence for a name that is not in PATH, with what may have been meant."""
        said = f'the host has no program "{name}"'
        elsewhere = [
            path for path in self._packages.named(name) if self._gathering.is_program(path)
        ]
        if elsewhere:
            return f"{said} in {':'.join(PATH)}; it has {elsewhere[0]}: name it by that path"
        known = sorted({found for folder in PATH for found in self._sysroot.names(folder)})
        return said + _suggestion(name, known)

    def _want_file(self, file: File, override: Override) -> None:
        absence = _absence(file.optional)
        paths: tuple[str, ...] = (file.source,)
        if is_glob(file.source):
            paths = self._sysroot.glob(file.source)
            if not paths:
                message = f"no file of the host matches {file.source}"
                self._gathering.lacking(absence, file.origin, message)
        for path in paths:
            self._gathering.want(
                Want(
                    path=path,
                    reason=Reason("files", None, file.origin),
                    absence=absence,
                    lack=f"the host has no file {path}",
                    target=_target(file, path),
                    explicit=path == file.source,
                    override=None if override == Override(override.line) else override,
                )
            )

    def _want_package(self, package: Package) -> None:
        paths = self._packages.files(package.name)
        if paths is None:
            message = f'the host has no package "{package.name}" installed'
            message += _suggestion(package.name, self._packages.names())
            self._gathering.lacking(_absence(package.optional), package.origin, message)
        for path in paths or ():
            self._gathering.want(
                Want(
                    path=path,
                    reason=Reason("packages", None, package.origin),
                    absence=Absence.SILENT,
                    lack=f"package {package.name} lists {path}, which the host does not have",
                    recurses=False,
                    is_found=True,
                )
            )

    def _want_zone(self, zone: str, absence: Absence) -> None:
        origin = dict(self._manifest.origins).get("etc.timezone", Origin("etc.timezone", 0))
        path = f"{surroundings.ZONES}/{zone}"
        if not surroundings.is_zone(zone):
            self._gathering.fail(origin, f"cannot use time zone {zone!r}: it is no zone's name")
            return
        self._gathering.want(
            Want(
                path=path,
                reason=Reason("etc.timezone", None, origin),
                absence=absence,
                lack=f"the host has no time zone {zone} ({path})",
                recurses=False,
            )
        )

    def _templates(self) -> tuple[tuple[str, str], ...]:
        origin = dict(self._manifest.origins).get("etc.skeleton", Origin("etc.skeleton", 0))
        wanted = [(template.source, template.origin) for template in self._manifest.templates]
        wanted += [
            (f"etc/{name}.j2", origin)
            for name in self._manifest.etc.skeleton
            if name not in _UNWRITTEN
        ]
        found: dict[str, str] = {}
        for source, asked in wanted:
            if source not in found:
                try:
                    found[source] = self._template_text(source)
                except HostLacks as error:
                    self._gathering.fail(asked, error.message)
        return tuple(sorted(found.items()))

    def _entries(self) -> tuple[HostEntry, ...]:
        found = self._gathering.found
        owners = self._packages.owners(
            # Every package lists the folders at the top, which merged /usr has as links.
            thing.source
            for thing in found.values()
            if thing.kind is not Kind.DIRECTORY and thing.source.count("/") > 1
        )
        return tuple(
            self._entry(found[path], owners.get(found[path].source)) for path in sorted(found)
        )

    def _entry(self, found: Found, ownership: Ownership | None) -> HostEntry:
        status = found.stat
        is_file = found.kind is Kind.FILE
        override = found.override
        host = self._sysroot.host(found.source)
        mode = stat.S_IMODE(status.st_mode) if override.mode is None else override.mode
        if found.kind is Kind.DIRECTORY and override.mode is not None:
            # Who may read the files of a folder may pass through it.
            mode |= (mode & 0o444) >> 2
        return HostEntry(
            path=PurePosixPath(found.path),
            kind=found.kind,
            source=Path(host),
            mode=mode,
            uid=status.st_uid,
            gid=status.st_gid,
            size=status.st_size if is_file else 0,
            target=self._link_text(found),
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            device=status.st_dev,
            inode=status.st_ino,
            nlink=status.st_nlink,
            xattrs=_xattrs(host) if is_file else (),
            package=None if ownership is None else (ownership.package, ownership.version),
            md5=None if ownership is None or not is_file else ownership.md5,
            explicit=found.explicit,
            owner=override.owner,
            group=override.group,
            why=self._why(found.reason),
        )

    def _link_text(self, found: Found) -> str | None:
        if found.kind is not Kind.SYMLINK:
            return None
        return found.target or self._sysroot.target(found.source)

    def _why(self, reason: Reason) -> Why:
        known = self._whys.get(reason)
        if known is None:
            known = self._whys[reason] = self._new_why(reason)
        return known

    def _new_why(self, reason: Reason) -> Why:
        by = reason.by
        if by is not None and by not in self._gathering.found:
            by = self._gathering.renamed.get(by, by)
        return Why(reason.rule, None if by is None else PurePosixPath(by), reason.origin)


def _absence(optional: bool) -> Absence:  # noqa: FBT001  the manifest's own word
    return Absence.WARNING if optional else Absence.PROBLEM


def _target(file: File, path: str) -> str | None:
    """Where in the tree: what a glob matches goes below `to`, under its own name."""
    if file.target is None:
        return None
    if is_glob(file.source):
        return f"{str(file.target).rstrip('/')}/{path.rpartition('/')[2]}"
    return str(file.target)


def _suggestion(name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f'; did you mean "{close[0]}"?' if close else ""


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    """The extended attributes that a copy must keep, sorted; a file that went away has none."""
    try:
        names = [
            name
            for name in os.listxattr(path, follow_symlinks=False)
            if name in _KEPT or name.startswith("user.")
        ]
        return tuple(
            (name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)
        )
    except OSError:
        return ()
