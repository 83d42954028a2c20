"""Doer: puts a file or folder where a user wants it: whole, by one rename, or not at all."""

import fcntl
import hashlib
import os
import re
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from tempfile import gettempdir
from typing import IO

from virttools import linux
from virttools.errors import ApplyError, DomainExists, UsageError
from virttools.tree.delete import delete

STDOUT = "-"


@contextmanager
def file(path: str) -> Generator[IO[bytes], None, None]:
    """A file to write, for a `with`; at its end it takes the place of a regular file, or of nothing.

    "-": standard output, unless that is a terminal. Raises DomainExists where something else is
    there, UsageError, ApplyError.
    """
    require_file(path)
    if path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    folder_fd, name = _parent(path)
    beside = _beside(folder_fd, name)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(beside, flags, 0o666, dir_fd=folder_fd), "w+b") as made:
            fcntl.flock(made, fcntl.LOCK_EX)
            yield made
            made.flush()
            os.fsync(made.fileno())
        os.rename(beside, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    except OSError as error:
        raise _refusal(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder_fd)
        os.close(folder_fd)


@contextmanager
def folder(path: str) -> Generator[int, None, None]:
    """A new folder to fill, for a `with`, by its descriptor; at its end it gets its name.

    Raises DomainExists where anything but an empty folder is there, ApplyError.
    """
    require_folder(path)
    parent_fd, name = _parent(path)
    beside = _beside(parent_fd, name)
    try:
        with _made(parent_fd, beside) as made_fd:
            yield made_fd
            linux.syncfs(made_fd)
        # rename(2) takes the place of an empty folder, and of nothing else.
        os.rename(beside, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    except OSError as error:
        raise _refusal(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            delete(parent_fd, beside)
        os.close(parent_fd)


@contextmanager
def scratch(path: str) -> Generator[str, None, None]:
    """A folder of our own beside `path` for a `with`, to work in; "-": in the folder for temporary files."""
    parent_fd, name = _parent(path if path != STDOUT else os.path.join(gettempdir(), "virt-image"))
    beside = _beside(parent_fd, name)
    try:
        with _made(parent_fd, beside):
            yield os.path.join(os.readlink(f"/proc/self/fd/{parent_fd}"), beside)
    except OSError as error:
        raise _refusal(path, error) from error
    finally:
        delete(parent_fd, beside)
        os.close(parent_fd)


def digest(path: str) -> str | None:
    """The SHA-256 (hex) of the regular file there, or None."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as found:
            if not stat.S_ISREG(os.fstat(found.fileno()).st_mode):
                return None
            return hashlib.file_digest(found, "sha256").hexdigest()
    except OSError:
        return None


def require_file(path: str) -> None:
    """Raise what `file` would raise of what is there now."""
    if path == STDOUT:
        if sys.stdout.isatty():
            raise UsageError("cannot write an image to a terminal", hint="name a file: -o FILE")
        return
    _require_parent(path)
    try:
        found = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise DomainExists(
            f"cannot write {path}: it is there already, and no regular file",
            hint="name another file, or move it away",
        )


def require_folder(path: str) -> None:
    """Raise what `folder` would raise of what is there now."""
    _require_parent(path)
    if os.path.lexists(path) and not _is_empty_folder(path):
        raise DomainExists(
            f"cannot write {path}: it is there already",
            hint="an image as a folder is written where nothing is; move it away",
        )


def _is_empty_folder(path: str) -> bool:
    try:
        return not os.path.islink(path) and not os.listdir(path)
    except OSError:
        return False


def _require_parent(path: str) -> None:
    parent_fd, _ = _parent(path)
    os.close(parent_fd)


def _parent(path: str) -> tuple[int, str]:
    where, name = os.path.split(os.path.abspath(path))
    try:
        return os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name
    except OSError as error:
        raise ApplyError(f"cannot write {path}: {where}: {error.strerror}") from error


def _beside(folder_fd: int, name: str) -> str:
    """A name for what becomes `name`; what a killed run of ours left of that goes first."""
    stale = re.compile(rf"\.{re.escape(name[:200])}\.[0-9a-f]{{12}}\.new")
    for found in os.listdir(folder_fd):
        if stale.fullmatch(found) and _is_abandoned(folder_fd, found):
            delete(folder_fd, found)
    return f".{name[:200]}.{os.urandom(6).hex()}.new"


def _is_abandoned(folder_fd: int, name: str) -> bool:
    """Whether it is our user's, and nobody writes it: who does holds a lock on it."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder_fd)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(fd).st_uid == os.geteuid()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


@contextmanager
def _made(parent_fd: int, name: str) -> Generator[int, None, None]:
    """A new folder, open and locked, for a `with`."""
    os.mkdir(name, 0o700, dir_fd=parent_fd)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=parent_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _refusal(path: str, error: OSError) -> ApplyError:
    return ApplyError(
        f"cannot write {path}: {error.strerror}", hint="nothing of it was left behind"
    )
