"""Doer: an OCI image layout on disk (image-layout.md of the image specification 1.1).

Blobs come first, each by a rename; index.json last. Who reads meanwhile sees the old image or the new.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from errno import ENOENT, ENOTDIR
from typing import Self

from virttools.errors import ApplyError, Busy, DomainExists, ManifestError
from virttools.image import documents
from virttools.image.documents import Descriptor
from virttools.image.pack import Hashing

_MARK = b'{"imageLayoutVersion":"1.0.0"}'
_BLOBS = "blobs/sha256"
_HALF = re.compile(r"\.(?:[a-z-]+(?:\.json)?\.)?[0-9a-f]{12,16}\.new")
_DOCUMENT = 16 << 20
"""Bytes of a JSON document that we read; registries take 4 MiB."""

Writing = Callable[[Hashing], None]


class Layout:
    """An open layout, by its descriptor, which the `with` closes; nobody else of us writes meanwhile."""

    def __init__(self, folder_fd: int) -> None:
        self._fd = folder_fd
        _make_folders(folder_fd)
        self._blobs_fd = os.open(
            _BLOBS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._blobs_fd)

    def add(self, content: bytes, media_type: str, **more: object) -> Descriptor:
        """A document as a blob."""
        made = documents.blob(media_type, content, **more)
        if not self.has(made):
            self.write(lambda sink: sink.write(content))
        return made

    def write(self, writing: Writing) -> tuple[str, int]:
        """A blob of what `writing` writes; its digest and its size in bytes."""
        name = f".{os.urandom(8).hex()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(name, flags, 0o644, dir_fd=self._blobs_fd), "wb") as file:
                sink = Hashing(file)
                writing(sink)
                file.flush()
                os.fsync(file.fileno())
            os.rename(name, sink.sha256, src_dir_fd=self._blobs_fd, dst_dir_fd=self._blobs_fd)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._blobs_fd)
            raise
        return f"sha256:{sink.sha256}", sink.size

    def sweep(self) -> None:
        """Remove what a killed run left half written."""
        for folder_fd in (self._fd, self._blobs_fd):
            for name in os.listdir(folder_fd):
                if _HALF.fullmatch(name):
                    os.unlink(name, dir_fd=folder_fd)

    def has(self, wanted: Descriptor) -> bool:
        """Whether the blob is there, whole: its content is read."""
        try:
            fd = self.open(wanted.digest)
        except OSError:
            return False
        with open(fd, "rb") as file:
            if os.fstat(file.fileno()).st_size != wanted.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.digest[7:]

    def open(self, digest: str) -> int:
        """A blob, for reading. Raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(digest.removeprefix("sha256:"), flags, dir_fd=self._blobs_fd)

    def read(self, digest: str) -> bytes:
        """A document. Raises ManifestError where it is missing or too long to be one."""
        try:
            with open(self.open(digest), "rb") as file:
                content = file.read(_DOCUMENT + 1)
        except OSError as error:
            raise ManifestError(f"cannot read the image: its blob {digest} is missing") from error
        if len(content) > _DOCUMENT:
            raise ManifestError(f"cannot read the image: {digest} is too long for a document")
        return content

    def index(self) -> tuple[Descriptor, ...]:
        """What index.json lists; nothing in a new layout. Raises ManifestError."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open("index.json", flags, dir_fd=self._fd), "rb") as file:
                return documents.descriptors(file.read(_DOCUMENT), "index.json")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ManifestError(f"cannot read index.json: {error.strerror}") from error

    def reachable(self, roots: Iterable[Descriptor]) -> frozenset[str]:
        """The digests of these, and of all that they lead to."""
        found: set[str] = set()
        pending = list(roots)
        while pending:
            one = pending.pop()
            if one.digest in found:
                continue
            found.add(one.digest)
            if one.media_type in (documents.INDEX, documents.MANIFEST):
                text = self.read(one.digest)
                pending += documents.descriptors(text, one.digest)
                if one.media_type == documents.MANIFEST:
                    config = documents.document(text, one.digest).get("config")
                    pending.append(documents.descriptor(config, one.digest))
        return frozenset(found)

    def commit(self, listed: Sequence[Descriptor], before: Sequence[Descriptor]) -> None:
        """Have index.json list these; what only `before` led to goes."""
        os.fsync(self._blobs_fd)
        _replace(self._fd, "oci-layout", _MARK)
        _replace(self._fd, "index.json", documents.index(listed))
        os.fsync(self._fd)
        try:
            gone = self.reachable(before) - self.reachable(listed)
        except ManifestError:
            return  # a layout that was damaged before: nothing is thrown away
        for digest in gone:
            with suppress(FileNotFoundError):
                os.unlink(digest.removeprefix("sha256:"), dir_fd=self._blobs_fd)


def require(path: str) -> None:
    """Raise DomainExists where that folder is no layout."""
    if not os.path.isfile(os.path.join(path, "oci-layout")):
        raise DomainExists(
            f"cannot write {path}: it is there already, and no OCI image layout",
            hint="name a folder that is not there, or an image layout to add to",
        )


@contextmanager
def existing(path: str) -> Generator[Layout, None, None]:
    """A layout that is there, locked, for a `with`. Raises DomainExists where it is none, Busy, ApplyError."""
    require(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ApplyError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with Layout(fd) as layout:
            layout.sweep()
            yield layout
    except BlockingIOError as error:
        raise Busy(f"cannot write {path}: another build writes it", hint="try again") from error
    except OSError as error:
        raise ApplyError(f"cannot write {path}: {error.strerror}") from error
    finally:
        os.close(fd)


def _make_folders(folder_fd: int) -> None:
    for name in ("blobs", _BLOBS):
        try:
            os.mkdir(name, 0o755, dir_fd=folder_fd)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                raise ManifestError(
                    "cannot use the image layout: its blobs is no folder"
                ) from error
            raise


def _replace(folder_fd: int, name: str, content: bytes) -> None:
    beside = f".{name}.{os.urandom(6).hex()}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(beside, flags, 0o644, dir_fd=folder_fd), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
