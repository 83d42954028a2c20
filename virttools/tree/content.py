"""Doer: copies what a host file holds into a new file, hashing it on the way, and dresses it."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EINVAL, ENOSYS, ENOTTY, ENXIO, EOPNOTSUPP, EPERM, ETXTBSY, EXDEV
from hashlib import md5, sha256
from typing import Protocol

from virttools import linux
from virttools.errors import ApplyError
from virttools.tree.actions import CopyFile

_CHUNK = 1 << 20
_ZEROS = memoryview(bytes(_CHUNK))
_NO_CLONE = (EOPNOTSUPP, EXDEV, EINVAL, ENOTTY, ENOSYS, EPERM, ETXTBSY)
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Digest:
    """sha256: hex; md5: hex, where a package's checksum was there to compare with."""

    sha256: str
    md5: str | None

    def serves(self, action: CopyFile) -> bool:
        """Whether it answers all that is asked of that file."""
        return action.md5 is None or self.md5 is not None

    def is_pristine(self, action: CopyFile) -> bool:
        """Whether the content is the very one that the package ships."""
        return action.md5 is not None and self.md5 == action.md5


class _Hasher(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Hashes:
    """sha256, and md5 where the package has one, of data as it goes by."""

    def __init__(self, action: CopyFile) -> None:
        self._sha256: _Hasher = sha256()
        self._md5: _Hasher | None = None if action.md5 is None else md5(usedforsecurity=False)

    def update(self, data: memoryview) -> None:
        self._sha256.update(data)
        if self._md5 is not None:
            self._md5.update(data)

    def digest(self) -> Digest:
        return Digest(
            self._sha256.hexdigest(), None if self._md5 is None else self._md5.hexdigest()
        )


def identity(found: os.stat_result) -> Identity:
    """What must stay equal as long as the content does: ctime can't be set by anybody."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def create(path: bytes, dir_fd: int) -> int:
    """A file that was not there before, 0600, open for writing. Raises OSError."""
    return os.open(path, _NEW_FILE, 0o600, dir_fd=dir_fd)


def _check(fd: int, action: CopyFile) -> os.stat_result:
    """Raise ApplyError unless the host file is as it was surveyed."""
    found = os.fstat(fd)
    if identity(found) != action.identity or not stat.S_ISREG(found.st_mode):
        raise ApplyError(
            f"cannot copy {action.source} to /{action.path}: it changed while being copied",
            hint="something on the host writes it (an upgrade?): run this again when that is done",
        )
    return found


class Copier:
    """Copies by the cheapest way that the two file systems have; remembers what they lack."""

    def __init__(self) -> None:
        self._cannot_clone: set[int] = set()

    def copy(self, action: CopyFile, dst_fd: int, known: Digest | None) -> Digest:
        """Fill the empty file dst_fd. known: the digest, where it need not be computed.

        Raises ApplyError where the source is not as it was surveyed before and after, OSError.
        """
        src_fd = os.open(action.source, _OLD_FILE)
        try:
            found = _check(src_fd, action)
            digest = self._copy(action, src_fd, dst_fd, known, found)
            _check(src_fd, action)
        finally:
            os.close(src_fd)
        return digest

    def _copy(
        self,
        action: CopyFile,
        src_fd: int,
        dst_fd: int,
        known: Digest | None,
        found: os.stat_result,
    ) -> Digest:
        if action.reflink and self._is_cloned(dst_fd, src_fd, found.st_dev):
            return known or _read_through(src_fd, action)
        if found.st_blocks * 512 < found.st_size:
            return _copy_islands(action, src_fd, dst_fd, known)
        if known is None:
            return _copy_hashing(action, src_fd, dst_fd)
        _transfer(src_fd, dst_fd, action.size)
        return known

    def _is_cloned(self, dst_fd: int, src_fd: int, device: int) -> bool:
        if device in self._cannot_clone:
            return False
        try:
            linux.ficlone(dst_fd, src_fd)
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            self._cannot_clone.add(device)
            return False
        return True


def _read_through(src_fd: int, action: CopyFile) -> Digest:
    return _pump(action, src_fd, lambda _: None)


def _copy_hashing(action: CopyFile, src_fd: int, dst_fd: int) -> Digest:
    return _pump(action, src_fd, lambda data: write(dst_fd, data))


def _pump(action: CopyFile, src_fd: int, sink: Callable[[memoryview], None]) -> Digest:
    hashes = _Hashes(action)
    left = action.size
    while left:
        data = os.read(src_fd, min(left, _CHUNK))
        if not data:
            break  # it shrank: the second check says so
        left -= len(data)
        view = memoryview(data)
        sink(view)
        hashes.update(view)
    return hashes.digest()


def write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _transfer(src_fd: int, dst_fd: int, size: int) -> None:
    """In the kernel if possible: copy_file_range(2) shares blocks by itself on XFS and btrfs."""
    left = size
    try:
        while left and (done := os.copy_file_range(src_fd, dst_fd, left)):
            left -= done
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        while left and (data := os.read(src_fd, min(left, _CHUNK))):
            left -= len(data)
            write(dst_fd, memoryview(data))


def _copy_islands(action: CopyFile, src_fd: int, dst_fd: int, known: Digest | None) -> Digest:
    """A file keeps its holes (lseek(2) SEEK_DATA); each is hashed as the zeros it reads as."""
    hashes = _Hashes(action)
    at = 0
    for start, end in _islands(src_fd, action.size):
        if known is None:
            _hash_zeros(hashes, start - at)
        os.lseek(src_fd, start, os.SEEK_SET)
        os.lseek(dst_fd, start, os.SEEK_SET)
        at = start
        while at < end and (data := os.read(src_fd, min(end - at, _CHUNK))):
            at += len(data)
            write(dst_fd, memoryview(data))
            if known is None:
                hashes.update(memoryview(data))
    os.ftruncate(dst_fd, action.size)
    if known is not None:
        return known
    _hash_zeros(hashes, action.size - at)
    return hashes.digest()


def _islands(fd: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == ENXIO:
                return  # nothing but a hole up to the end
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def _hash_zeros(hashes: _Hashes, count: int) -> None:
    while count > 0:
        hashes.update(_ZEROS[: min(count, _CHUNK)])
        count -= _CHUNK


@dataclass(frozen=True, slots=True)
class Dress:
    """What a new file is given once its content is in. mtime_ns None: left as it is."""

    mode: int
    uid: int
    gid: int
    xattrs: tuple[tuple[str, bytes], ...]
    mtime_ns: int | None

    def put_on(self, fd: int) -> None:
        """Owner, mode, attributes, time, in this order: chown(2) drops set-ids and capabilities.

        Raises OSError.
        """
        os.fchown(fd, self.uid, self.gid)
        os.fchmod(fd, self.mode)
        for name, value in self.xattrs:
            os.setxattr(fd, name, value)
        if self.mtime_ns is not None:
            os.utime(fd, ns=(self.mtime_ns, self.mtime_ns))
