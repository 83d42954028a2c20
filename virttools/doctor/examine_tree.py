"""Reader: what checks need to know of a tree; nothing in it is followed out, waited for, or read whole."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Sequence

from virttools.doctor.facts import Names, OldFile, Person, Status, Walked
from virttools.enter import accounts, inside
from virttools.host.packages import Packages
from virttools.host.sysroot import Sysroot
from virttools.tree import beneath, shared
from virttools.tree.record import Entry

Inodes = frozenset[tuple[int, int]]

_LARGEST = 16 * 2**20
_MOST_PEOPLE = 20_000
_LIBRARY = re.compile(r"\.so(\.|$)")
_ROOTS_OWN = ("etc", *shared.FOLDERS)
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "fifo",
}


def _status(found: os.stat_result) -> Status:
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "")
    return Status(kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def walk(tree_fd: int, recorded: Iterable[str], stored: Inodes) -> Walked:
    """Look at every name of a tree, once. stored: the inodes of the store."""
    wanted = frozenset(recorded)
    statuses: dict[str, Status] = {}
    names: dict[tuple[int, int], list[str]] = {}
    counts: dict[tuple[int, int], int] = {}
    writable: list[tuple[str, Status]] = []
    set_id: list[tuple[str, Status]] = []
    for path, found in beneath.walk(tree_fd):
        place = f"/{path}"
        if place in wanted:
            statuses[place] = _status(found)
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            names.setdefault(key, []).append(place)
            counts[key] = found.st_nlink
        if _is_set_id(found):
            set_id.append((place, _status(found)))
        if found.st_mode & 0o002 and _is_roots(path, found):
            writable.append((place, _status(found)))
    top = _status(os.fstat(tree_fd))
    linked = [Names(tuple(places), counts[key], key in stored) for key, places in names.items()]
    return Walked(
        top=top,
        statuses=statuses,
        writable=tuple(writable),
        set_id=tuple(set_id),
        names=tuple(linked),
    )


def _is_set_id(found: os.stat_result) -> bool:
    if not stat.S_ISREG(found.st_mode):
        return False
    is_roots = bool(found.st_mode & stat.S_ISUID) and found.st_uid == 0
    return is_roots or found.st_mode & 0o2010 == 0o2010


def _is_roots(path: str, found: os.stat_result) -> bool:
    """Whether it is of the parts that are root's, and no link, device or sticky folder."""
    top, slash, _ = path.partition("/")
    is_folder = stat.S_ISDIR(found.st_mode)
    is_plain = is_folder or stat.S_ISREG(found.st_mode)
    is_sticky = is_folder and bool(found.st_mode & stat.S_ISVTX)
    return is_plain and not is_sticky and (not slash or top in _ROOTS_OWN)


def stored(store_fd: int) -> Inodes:
    """The inodes of all files in the store."""
    found = (status for _, status in beneath.walk(store_fd))
    return frozenset((one.st_dev, one.st_ino) for one in found if stat.S_ISREG(one.st_mode))


def people(tree_fd: int) -> tuple[Person, ...] | None:
    """Those of the tree's passwd; None where it has none."""
    text = inside.read(tree_fd, "/etc/passwd", _LARGEST)
    if not text:
        return None
    return tuple(
        Person(
            os.fsdecode(one.name),
            one.uid,
            one.gid,
            os.fsdecode(one.home),
            os.fsdecode(one.shell),
            inside.is_folder(tree_fd, os.fsdecode(one.home)),
        )
        for one in accounts.listed(text, _MOST_PEOPLE)
    )


def groups(tree_fd: int) -> tuple[tuple[str, int], ...]:
    """Name and number of the groups of the tree."""
    text = inside.read(tree_fd, "/etc/group", _LARGEST) or b""
    rows = (line.split(":") for line in os.fsdecode(text).split("\n", _MOST_PEOPLE))
    return tuple((row[0], int(row[2])) for row in rows if len(row) == 4 and _is_number(row[2]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def resolvers(tree_fd: int) -> tuple[str, ...]:
    """The name servers of the tree's resolv.conf."""
    text = inside.read(tree_fd, "/etc/resolv.conf", 1 << 16) or b""
    lines = [line.split() for line in text.decode("ascii", "replace").splitlines()]
    return tuple(words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1)


def is_there(tree_fd: int, path: str) -> bool:
    return inside.status(tree_fd, path) is not None


class Libraries:
    """The host's files of today, each read once for all domains."""

    __slots__ = ("_digests", "_packages", "_sysroot")

    def __init__(self, sysroot: Sysroot) -> None:
        self._sysroot = sysroot
        self._packages = Packages(sysroot)
        self._digests: dict[str, str | None] = {}

    def old(self, entries: Sequence[Entry]) -> tuple[OldFile, ...]:
        """The libraries and set-id programs that were copied from files of the host that are others now."""
        changed = [(one, one.source) for one in entries if one.source and self._is_other(one)]
        owners = self._packages.owners(source for _, source in changed)
        return tuple(
            OldFile(
                one.path,
                one.package,
                one.version,
                owners[source].version if source in owners else None,
            )
            for one, source in changed
        )

    def _is_other(self, entry: Entry) -> bool:
        name = entry.path.rpartition("/")[2]
        if entry.type != "file" or entry.source is None:
            return False
        if not entry.mode & 0o6000 and not _LIBRARY.search(name):
            return False
        now = self._digest(entry.source)
        return now is not None and now != entry.sha256

    def _digest(self, path: str) -> str | None:
        if path not in self._digests:
            self._digests[path] = self._read(path) if path.startswith("/") else None
        return self._digests[path]

    def _read(self, path: str) -> str | None:
        fd = self._sysroot.open(path)
        if fd is None:
            return None
        with open(fd, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
