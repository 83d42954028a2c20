"""Reads a tree, whether just built or living, as paths with types and contents. Changes nothing."""

import os
import stat
from collections.abc import Hashable, Iterable, Iterator, Sequence
from errno import ENAMETOOLONG
from typing import NamedTuple, Protocol

from virttools.errors import ApplyError, Busy
from virttools.host.facts import Kind
from virttools.scrub import reach
from virttools.scrub.findings import Mends, printable
from virttools.tree import beneath
from virttools.tree.record import Entry

WINDOW = 4 << 20
"""Bytes read at once; bounds the memory that a hostile file can make us use."""

LONGEST_TEXT = 64 << 20
"""Bytes of a file that is looked at, or mended, line by line."""


class ViewFile(NamedTuple):
    """One path of a tree, relative to it. A NamedTuple: it is made 4 times faster than a dataclass.

    size: bytes. target: of a symlink. identity: equal for equal content, None where unknown.
    public: the digest (hex of MD5 or SHA-256) of content that a package ships to everybody, or None.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int = 0
    nlink: int = 1
    target: str | None = None
    identity: Hashable = None
    public: str | None = None


class View(Protocol):
    """A tree to look at."""

    def entries(self) -> Sequence[ViewFile]:
        """Every path below the root of the tree, sorted."""

    def windows(self, path: str) -> Iterator[bytes]:
        """The content of a regular file, WINDOW bytes at a time; holes are left out. Nothing if it is gone.

        Raises ApplyError where it can't be read.
        """


def read(view: View, path: str) -> bytes:
    """The content of a file, of at most LONGEST_TEXT bytes."""
    found = b""
    for window in view.windows(path):
        found += window
        if len(found) >= LONGEST_TEXT:
            return found[:LONGEST_TEXT]
    return found


class BuiltView:
    """A staging tree whose entries are known because we have just made them; contents come from the disk."""

    def __init__(self, tree_fd: int, entries: Iterable[Entry]) -> None:
        self._tree_fd = tree_fd
        self._entries = sorted(_from_record(entry) for entry in entries)

    def entries(self) -> Sequence[ViewFile]:
        return self._entries

    def windows(self, path: str) -> Iterator[bytes]:
        return _tree_windows(self._tree_fd, path)


def _from_record(entry: Entry) -> ViewFile:
    return ViewFile(
        entry.path.lstrip("/"), Kind(entry.type), entry.mode, entry.uid, entry.gid, entry.size,
        target=entry.target, identity=entry.sha256,
    )  # fmt: skip


class TreeView:
    """A tree on disk, which its owner may be changing while we look. Mounts below it are not entered.

    recorded: what was put there when it was built: the files of packages that are still as they were are
    public, but for those in /etc, where an administrator of the host may have had a hand in them.
    """

    def __init__(self, tree_fd: int, recorded: Iterable[Entry] = ()) -> None:
        self._tree_fd = tree_fd
        self._public = {
            entry.path.lstrip("/"): entry.sha256
            for entry in recorded
            if entry.package is not None and not entry.path.startswith("/etc/")
        }
        self._entries: list[ViewFile] | None = None

    def entries(self) -> Sequence[ViewFile]:
        if self._entries is None:
            try:
                walked = list(beneath.walk(self._tree_fd, beneath.MOST_KEPT))
            except OSError as error:
                if error.errno == ENAMETOOLONG:
                    raise ApplyError(
                        f"cannot look through the tree: {printable(error.filename)}: {error.strerror}",
                        hint="folders lie in each other there by the thousand: remove them",
                    ) from error
                raise Busy(
                    f"cannot look through the tree: {error.strerror}",
                    hint="somebody is changing it: try again",
                ) from error
            self._entries = sorted(self._file(path, status) for path, status in walked)
        return self._entries

    def windows(self, path: str) -> Iterator[bytes]:
        return _tree_windows(self._tree_fd, path)

    def _file(self, path: str, status: os.stat_result) -> ViewFile:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        return ViewFile(
            path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
            status.st_size, status.st_nlink,
            target=self._target(path) if kind is Kind.SYMLINK else None,
            identity=_identity(status) if kind is Kind.FILE else None,
            public=self._public.get(path),
        )  # fmt: skip

    def _target(self, path: str) -> str:
        try:
            with reach.parent(self._tree_fd, path) as (parent_fd, name):
                return os.readlink(name, dir_fd=parent_fd)
        except OSError:
            return ""  # it went away, or its folder became a link, since the walk


class MendedView:
    """What a view will show once findings are mended. It is how `--dry-run` runs the last scan."""

    def __init__(self, view: View, mends: dict[str, Mends]) -> None:
        self._view = view
        self._mends = mends

    def entries(self) -> Sequence[ViewFile]:
        gone = {path for path, mends in self._mends.items() if mends.removed}
        return [self._after(file) for file in self._view.entries() if not lies_in(file.path, gone)]

    def windows(self, path: str) -> Iterator[bytes]:
        mends = self._mends.get(path)
        if mends is None or not mends.rewritten:
            return self._view.windows(path)
        return iter((mends.text(b"" if mends.emptied else read(self._view, path)),))

    def _after(self, file: ViewFile) -> ViewFile:
        mends = self._mends.get(file.path)
        if mends is None or not mends.rewritten:
            return file
        size = sum(len(block) for block in self.windows(file.path))
        return file._replace(size=size, identity=None, public=None, nlink=1)


def lies_in(path: str, folders: "set[str]") -> bool:
    """True if `path` is one of `folders` or below one."""
    if not folders:
        return False
    while path:
        if path in folders:
            return True
        path = path.rpartition("/")[0]
    return False


_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.DEVICE,
    stat.S_IFBLK: Kind.DEVICE,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFIFO: Kind.FIFO,
}


def _identity(status: os.stat_result) -> Hashable:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _tree_windows(tree_fd: int, path: str) -> Iterator[bytes]:
    try:
        with reach.regular(tree_fd, path, os.O_RDONLY | os.O_NONBLOCK) as fd:
            yield from blocks(fd)
    except OSError as error:
        if error.errno not in reach.CHANGED:
            raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> ApplyError:
    return ApplyError(f"cannot read {printable(path)}: {error.strerror}")


def blocks(fd: int) -> Iterator[bytes]:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return
    offset = 0
    while offset < status.st_size:  # as it was: a log that grows while we read ends too
        block = os.pread(fd, min(WINDOW, status.st_size - offset), offset)
        if not block:
            return
        yield block
        offset += len(block)
        if len(block) == WINDOW and block.count(0) == WINDOW:
            offset = _next_data(fd, offset, status.st_size)


def _next_data(fd: int, offset: int, size: int) -> int:
    """Where a sparse file goes on: a tenant can make one of terabytes, at no cost."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError:  # ENXIO: nothing but a hole up to the end
        return size
