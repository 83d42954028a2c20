"""Values: from a manifest and the host's facts to the plan of each domain. Pure: nothing is read or written.

What holds for every domain of a manifest is decided once, in `prepare`; a domain adds what bears its name.
"""

from dataclasses import dataclass, replace

from virttools.errors import ManifestError, Problem
from virttools.host.facts import Facts, HostEntry, Kind, Why
from virttools.manifest.model import Daemon, Isolation, LinkMode, Manifest, Origin, Service
from virttools.tree import skeleton
from virttools.tree.accounts import Accounts, moved, number
from virttools.tree.actions import (
    Action,
    CopyFile,
    LinkFile,
    LinkSocket,
    MakeDir,
    MakeNode,
    MakeSymlink,
    Plan,
    WriteFile,
)
from virttools.tree.paths import Links
from virttools.tree.shared import FOLDERS

_SET_ID = 0o6000
_OTHERS_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The part of a plan that all domains of one manifest share; the same action objects go into each."""

    manifest: Manifest
    facts: Facts
    accounts: Accounts
    common: tuple[Action, ...]
    places: dict[str, str]

    def plan(self, domain: str, addresses: tuple[str, ...], *, log: str | None = None) -> Plan:
        """The plan of one domain. log: the socket that becomes its dev/log, relative to the root, or None."""
        manifest = replace(self.manifest, addresses=addresses)
        written = tuple(
            self._write(file, self.places[file.path])
            for file in skeleton.files(domain, manifest, self.facts, self.accounts)
            if file.path in self.places
        )
        return Plan(
            domain=domain,
            actions=self.common + written + self._log_folder(log) + _log_link(log),
            warnings=self.facts.warnings,
            absent=self.facts.absent,
        )

    def moved(self, base: int) -> "Blueprint":
        """The same with another `uid_base`: what belongs to root stays the very same object.

        Raises ManifestError as `prepare` does.
        """
        if base == self.accounts.uid_base:
            return self
        manifest = replace(self.manifest, uid_base=base)
        if not self.accounts.can_begin_at(base):
            return prepare(manifest, self.facts)
        by = base - self.accounts.uid_base
        return replace(
            self,
            manifest=manifest,
            accounts=self.accounts.moved(base),
            common=tuple(_moved(action, by) for action in self.common),
        )

    def _log_folder(self, log: str | None) -> tuple[Action, ...]:
        if log is None or any(action.path == "dev" for action in self.common):
            return ()
        why = Why("devlog", None, Origin("devlog", 0))
        return (MakeDir(path="dev", mode=0o755, uid=0, gid=0, why=why),)

    def _write(self, file: skeleton.SkeletonFile, path: str) -> WriteFile:
        return WriteFile(
            path=path,
            content=file.content,
            mode=file.mode,
            uid=self.accounts.uid_of(file.owner),
            gid=self.accounts.gid_of(file.group),
            source=file.source,
            why=Why("template", None, file.origin),
        )


def prepare(manifest: Manifest, facts: Facts) -> Blueprint:
    """Decide everything that does not depend on a domain's name.

    Raises ManifestError with every conflict: two things at one path, a file where a folder must be.
    """
    drawing = _Drawing(manifest, facts)
    drawing.draw()
    if drawing.problems:
        raise ManifestError(
            f"cannot plan a tree: {_conflicts(len(drawing.problems))} in its manifest",
            problems=tuple(sorted(drawing.problems, key=lambda one: (one.file, one.line))),
        )
    return drawing.blueprint()


def _moved(action: Action, by: int) -> Action:
    if isinstance(action, MakeDir | CopyFile | MakeNode) and (action.uid or action.gid):
        return replace(action, uid=moved(action.uid, by), gid=moved(action.gid, by))
    return action


def _conflicts(count: int) -> str:
    return "1 conflict" if count == 1 else f"{count} conflicts"


def _log_link(log: str | None) -> tuple[Action, ...]:
    if log is None:
        return ()
    why = Why("devlog", None, Origin("devlog", 0))
    return (LinkSocket(path="dev/log", source=log, why=why),)


# How strongly a thing holds its path: a stronger one takes it over, equals of different kinds conflict.
_IMPLIED, _DRAWN, _SKELETON, _DECLARED = range(4)


@dataclass(frozen=True, slots=True)
class _Reserved:
    """A path that each domain fills with a text of its own. asked: as the manifest has it."""

    path: str
    asked: str
    why: Why


@dataclass(slots=True)
class _Held:
    rank: int
    what: Action | _Reserved


class _Drawing:
    """Gathers what the manifest, the facts and the skeleton want at each path, and notes conflicts."""

    def __init__(self, manifest: Manifest, facts: Facts) -> None:
        self.manifest = manifest
        self.facts = facts
        self.accounts = number(manifest)
        self.entries = (*facts.entries, *skeleton.copies(self.accounts, facts))
        self.problems: list[Problem] = []
        self._links = Links()
        self._held: dict[str, _Held] = {}
        self._first_name: dict[tuple[int, ...], str] = {}
        self._user_names = dict(facts.user_names)
        self._group_names = dict(facts.group_names)
        self._sharing = _sharing(manifest)

    def draw(self) -> None:
        self._draw_links()
        self._setuid = {self._links.canonical(str(path)) for path in self.manifest.setuid}
        self._draw_directories()
        self._draw_devices()
        self._draw_skeleton()
        for entry in self.entries:
            if entry.kind is Kind.FILE:
                self._draw_file(entry)
        self._draw_parents()

    def blueprint(self) -> Blueprint:
        made = [held.what for held in self._held.values()]
        actions = [what for what in made if not isinstance(what, _Reserved)]
        actions.sort(key=lambda action: (not isinstance(action, MakeDir), action.path))
        return Blueprint(
            manifest=self.manifest,
            facts=self.facts,
            accounts=self.accounts,
            common=tuple(actions),
            places={what.asked: what.path for what in made if isinstance(what, _Reserved)},
        )

    def _put(self, path: str, rank: int, what: Action | _Reserved) -> None:
        held = self._held.get(path)
        if held is None or held.rank < rank:
            self._held[path] = _Held(rank, what)
        elif held.rank == rank:
            if type(held.what) is not type(what):
                self._conflict(path, held.what, what)
            self._held[path] = _Held(rank, what)

    def _conflict(self, path: str, one: Action | _Reserved, other: Action | _Reserved) -> None:
        origin = other.why.origin
        said = f"cannot have {_noun(other)} at /{path}: {one.why.origin} has {_noun(one)} there"
        self.problems.append(Problem(origin.file, origin.line, said))

    def _draw_links(self) -> None:
        drawn = [entry for entry in self.entries if entry.kind is Kind.SYMLINK]
        wanted: list[tuple[str, str, int, Why, tuple[str, str] | None]] = [
            (str(entry.path), entry.target or "", _DRAWN, entry.why, entry.package)
            for entry in drawn
        ]
        for links, rule, rank in (
            (skeleton.links(self.manifest, self.facts), "etc.skeleton", _SKELETON),
            (self.manifest.symlinks, "symlinks", _DECLARED),
        ):
            wanted += [
                (str(link.path), link.target, rank, Why(rule, None, link.origin), None)
                for link in links
            ]
        # Parents first: a link's own folder may be a link (merged /usr).
        for path, target, rank, why, package in sorted(
            wanted, key=lambda want: (want[0].count("/"), want[2])
        ):
            place = self._links.canonical_parent(path)
            self._links.add(place, target)
            self._put(place, rank, MakeSymlink(path=place, target=target, package=package, why=why))

    def _draw_directories(self) -> None:
        for entry in self.entries:
            if entry.kind is Kind.DIRECTORY:
                path = self._links.canonical(str(entry.path))
                uid, gid = self._ids(entry)
                made = MakeDir(path=path, mode=entry.mode, uid=uid, gid=gid, why=entry.why)
                self._put(path, _DRAWN, made)
        for home in skeleton.homes(self.manifest, self.accounts):
            path = self._links.canonical(home.path)
            why = Why("home", None, home.origin)
            made = MakeDir(path=path, mode=home.mode, uid=home.uid, gid=home.gid, why=why)
            self._put(path, _SKELETON, made)
        for wish in self.manifest.directories:
            path = self._links.canonical(str(wish.path))
            made = MakeDir(
                path=path,
                mode=wish.mode,
                uid=self._uid(wish.owner, wish.origin),
                gid=self._gid(wish.group, wish.origin),
                why=Why("directories", None, wish.origin),
            )
            self._put(path, _DECLARED, made)

    def _draw_devices(self) -> None:
        for wish in self.manifest.devices:
            path = self._links.canonical_parent(str(wish.path))
            node = MakeNode(
                path=path,
                type=wish.type,
                major=wish.major,
                minor=wish.minor,
                mode=wish.mode,
                uid=self._uid(wish.owner, wish.origin),
                gid=self._gid(wish.group, wish.origin),
                why=Why("devices", None, wish.origin),
            )
            self._put(path, _DECLARED, node)

    def _draw_skeleton(self) -> None:
        declared = {str(template.target) for template in self.manifest.templates}
        for file in skeleton.places(self.manifest, self.facts):
            place = self._links.canonical_parent(file.path)
            rank = _DECLARED if file.path in declared else _SKELETON
            self._uid(file.owner, file.origin)
            self._gid(file.group, file.origin)
            self._put(place, rank, _Reserved(place, file.path, Why("template", None, file.origin)))

    def _draw_file(self, entry: HostEntry) -> None:
        path = self._links.canonical_parent(str(entry.path))
        rank = _DECLARED if entry.explicit else _DRAWN
        held = self._held.get(path)
        if held is not None and held.rank >= rank and isinstance(held.what, _Reserved):
            return
        copy = self._copy(entry, path)
        name = (*copy.identity, copy.mode, copy.uid, copy.gid)
        first = self._first_name.setdefault(name, path)
        if entry.nlink > 1 and first != path and not copy.share:
            link = LinkFile(path=path, existing=first, why=entry.why, package=entry.package)
            self._put(path, rank, link)
        else:
            self._put(path, rank, copy)

    def _copy(self, entry: HostEntry, path: str) -> CopyFile:
        uid, gid = self._ids(entry)
        mode = entry.mode if path in self._setuid else entry.mode & ~_SET_ID
        return CopyFile(
            path=path,
            source=entry.source,
            mode=mode,
            uid=uid,
            gid=gid,
            size=entry.size,
            mtime_ns=entry.mtime_ns,
            identity=(entry.device, entry.inode, entry.size, entry.mtime_ns, entry.ctime_ns),
            xattrs=entry.xattrs,
            share=self._sharing
            and entry.uid == 0
            and _may_share(path, mode, uid, gid, entry.xattrs),
            reflink=self.manifest.link is not LinkMode.COPY,
            package=entry.package,
            md5=entry.md5,
            why=entry.why,
        )

    def _draw_parents(self) -> None:
        for path, held in list(self._held.items()):
            parent = path.rpartition("/")[0]
            while parent:
                over = self._held.get(parent)
                if over is not None:
                    if not isinstance(over.what, MakeDir):
                        self._conflict(path, over.what, held.what)
                    break
                why = Why("parent folder", None, held.what.why.origin)
                self._held[parent] = _Held(
                    _IMPLIED, MakeDir(path=parent, mode=0o755, uid=0, gid=0, why=why)
                )
                parent = parent.rpartition("/")[0]

    def _ids(self, entry: HostEntry) -> tuple[int, int]:
        """The tree's numbers for a host file's owner: by name where the tree has that name, else root."""
        origin = entry.why.origin
        if entry.owner is not None:
            uid = self._uid(entry.owner, origin)
        else:
            uid = self.accounts.uid_of(self._user_names.get(entry.uid, "root"), 0)
        if entry.group is not None:
            gid = self._gid(entry.group, origin)
        else:
            gid = self.accounts.gid_of(self._group_names.get(entry.gid, "root"), 0)
        return uid, gid

    def _uid(self, name: str, origin: Origin) -> int:
        found = self.accounts.uid_of(name, -1)
        if found < 0:
            said = f"cannot give a file to user {name!r}: `users` declares no such user"
            self.problems.append(Problem(origin.file, origin.line, said))
        return found

    def _gid(self, name: str, origin: Origin) -> int:
        found = self.accounts.gid_of(name, -1)
        if found < 0:
            said = f"cannot give a file to group {name!r}: `groups` declares no such group"
            self.problems.append(Problem(origin.file, origin.line, said))
        return found


def _sharing(manifest: Manifest) -> bool:
    """Whether files may share inodes with other trees: root in a plain chroot could write them."""
    if manifest.link is LinkMode.HARD:
        return True
    programs: tuple[Service | Daemon, ...] = (*manifest.services, *manifest.daemons)
    return manifest.link is LinkMode.AUTO and not any(
        one.isolation is Isolation.CHROOT and one.user == "root" for one in programs
    )


def _may_share(
    path: str, mode: int, uid: int, gid: int, xattrs: tuple[tuple[str, bytes], ...]
) -> bool:
    return (
        uid == 0
        and gid == 0
        and not mode & (_SET_ID | _OTHERS_WRITE)
        and not xattrs
        and path.partition("/")[0] in FOLDERS
    )


def _noun(what: Action | _Reserved) -> str:
    match what:
        case MakeDir():
            return "a folder"
        case MakeSymlink():
            return "a symlink"
        case MakeNode():
            return "a device"
        case LinkSocket():
            return "a socket"
        case CopyFile() | LinkFile() | WriteFile() | _Reserved():
            return "a file"
