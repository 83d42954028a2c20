"""Doer: one copy of each file that trees may share by hard link, and what is known of host files.

An object's name tells its content and attributes, times too: equal content with other attributes is
another object, since one inode has one set of them.
"""

import marshal
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from errno import EMLINK
from hashlib import sha256

from virttools.errors import Busy
from virttools.tree.actions import CopyFile
from virttools.tree.content import Copier, Digest, Dress, create
from virttools.tree.root import Root

_INDEX = "index"
_TEMPORARY = ".new."
# A file written within the tick of its own timestamp may change again unseen, as git knows from its
# "racy" entries; 2 s is the coarsest clock of a file system in use.
_SETTLED_NS = 2_000_000_000

_Row = tuple[int, int, int, str, str | None]
"""size, mtime_ns, ctime_ns, sha256, md5: the rest of a file's identity, and its digest."""


class Object:
    """A file of the store, ready to be linked; `name` moves on when an inode has all its links."""

    __slots__ = ("digest", "dress", "name", "shard", "size", "stem")

    def __init__(self, digest: Digest, dress: Dress, size: int) -> None:
        self.digest = digest
        self.dress = dress
        self.size = size
        self.stem = _stem(digest.sha256, dress, size)
        self.shard = 0
        self.name = self.stem

    def move_on(self) -> None:
        self.shard += 1
        self.name = b"%s.%d" % (self.stem, self.shard)


def _stem(digest: str, dress: Dress, size: int) -> bytes:
    xattrs = sha256(marshal.dumps(dress.xattrs, 2)).hexdigest()[:16] if dress.xattrs else ""
    return (
        f"{digest[:2]}/{digest}-{size:x}-{dress.mode:o}-{dress.uid}-{dress.gid}"
        f"-{dress.mtime_ns or 0:x}{xattrs and '-'}{xattrs}"
    ).encode()


class Store:
    """The store of a root, for one build; safe to use from several threads."""

    def __init__(self, root: Root, copier: Copier) -> None:
        self._root = root
        self._fd = root.store_fd
        self._copier = copier
        self._index = _load(root.store_fd)
        self._news: dict[tuple[int, int], _Row] = {}

    def known(self, action: CopyFile) -> Digest | None:
        """The digest of a host file that has not changed since it was last read, or None."""
        device, inode, *rest = action.identity
        row = self._index.get((device, inode))
        if row is None or [*row[:3]] != rest:
            return None
        digest = Digest(row[3], row[4])
        return digest if digest.serves(action) else None

    def learn(self, action: CopyFile, digest: Digest) -> None:
        """Remember a digest for later builds, unless the file is so fresh it may change unseen."""
        device, inode, size, mtime, ctime = action.identity
        if time.time_ns() - max(mtime, ctime) > _SETTLED_NS:
            self._news[device, inode] = (size, mtime, ctime, digest.sha256, digest.md5)

    def find(self, action: CopyFile, dress: Dress) -> Object | None:
        """The object for a host file, without reading that, or None. Raises OSError."""
        known = self.known(action)
        if known is None:
            return None
        found = Object(known, dress, action.size)
        return found if self._is_whole(found) else None

    def _is_whole(self, wanted: Object) -> bool:
        """An object that is not what its name says was tampered with, and is made anew."""
        try:
            found = os.stat(wanted.name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        dress = wanted.dress
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_size == wanted.size
            and stat.S_IMODE(found.st_mode) == dress.mode
            and (found.st_uid, found.st_gid) == (dress.uid, dress.gid)
            and _is_same_time(found.st_mtime_ns, dress.mtime_ns or 0)
        )

    def take_in(self, action: CopyFile, dress: Dress) -> Object:
        """Copy a host file into the store, hashing it in the same pass.

        Raises ApplyError where the source changed, OSError.
        """
        temporary = f"{_TEMPORARY}{os.urandom(12).hex()}".encode()
        fd = create(temporary, self._fd)
        try:
            try:
                digest = self._copier.copy(action, fd, None)
                dress.put_on(fd)
            finally:
                os.close(fd)
            made = Object(digest, dress, action.size)
            self._name(temporary, made)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._fd)
            raise
        self.learn(action, digest)
        return made

    def _name(self, temporary: bytes, made: Object) -> None:
        if self._is_whole(made):
            os.unlink(temporary, dir_fd=self._fd)
        else:
            _rename(self._fd, temporary, made.name)

    def link(self, wanted: Object, path: bytes, tree_fd: int) -> None:
        """Give the object a name in a tree; goes on to a further copy where an inode is full.

        Raises OSError.
        """
        while True:
            try:
                os.link(
                    wanted.name,
                    path,
                    src_dir_fd=self._fd,
                    dst_dir_fd=tree_fd,
                    follow_symlinks=False,
                )
            except OSError as error:
                if error.errno != EMLINK:
                    raise
                self._shard(wanted)
            else:
                return

    def _shard(self, full: Object) -> None:
        """ext4 has room for 65000 names of an inode; what comes then links to a further copy."""
        source = full.name
        full.move_on()
        if self._is_whole(full):
            return
        temporary = f"{_TEMPORARY}{os.urandom(12).hex()}".encode()
        src_fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        with open(src_fd, "rb"), open(create(temporary, self._fd), "wb") as file:
            while os.copy_file_range(src_fd, file.fileno(), 1 << 30):
                pass
            full.dress.put_on(file.fileno())
        self._name(temporary, full)

    def save(self) -> None:
        """Write down what was learnt, together with what others learnt meanwhile."""
        if not self._news:
            return
        with self._root.lock_all():
            index = _load(self._fd)
            index.update(self._news)
            self._index = index
            _write_index(self._fd, index)
        self._news = {}


def collect(root: Root) -> int:
    """Throw out the objects that no tree links to; returns how many. Not while somebody builds."""
    try:
        with root.lock_store(shared=False):
            return sum(_throw_out(root.store_fd, name) for name in _objects(root.store_fd))
    except Busy:
        return 0  # the next one will


def _objects(store_fd: int) -> Iterable[str]:
    for name in os.listdir(store_fd):
        if name.startswith(_TEMPORARY):
            yield name
        elif name != _INDEX:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=store_fd)
            try:
                names = os.listdir(fd)
            finally:
                os.close(fd)
            yield from (f"{name}/{object_}" for object_ in names)


def _throw_out(store_fd: int, name: str) -> bool:
    if os.stat(name, dir_fd=store_fd, follow_symlinks=False).st_nlink > 1:
        return False
    os.unlink(name, dir_fd=store_fd)
    return True


def _rename(store_fd: int, temporary: bytes, name: bytes) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=store_fd, dst_dir_fd=store_fd)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name[:2], 0o700, dir_fd=store_fd)
        os.rename(temporary, name, src_dir_fd=store_fd, dst_dir_fd=store_fd)


def _is_same_time(found: int, wanted: int) -> bool:
    """Some file systems keep whole seconds only."""
    return found == wanted or (found % 10**9 == 0 and found == wanted - wanted % 10**9)


def _load(store_fd: int) -> dict[tuple[int, int], _Row]:
    """The index; one that is damaged, or of another Python's making, counts as empty."""
    try:
        with open(os.open(_INDEX, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=store_fd), "rb") as file:
            text = file.read()
        if sha256(text[32:]).digest() != text[:32]:
            return {}
        index: dict[tuple[int, int], _Row] = marshal.loads(text[32:])  # noqa: S302  ours, in a folder of ours, checked
        return index
    except (OSError, ValueError, EOFError, TypeError):
        return {}


def _write_index(store_fd: int, index: dict[tuple[int, int], _Row]) -> None:
    text = marshal.dumps(index, 4)
    temporary = f"{_TEMPORARY}{os.urandom(12).hex()}"
    with open(create(temporary.encode(), store_fd), "wb") as file:
        file.write(sha256(text).digest() + text)
    os.rename(temporary, _INDEX, src_dir_fd=store_fd, dst_dir_fd=store_fd)
