"""Reads `.virt-domain`: a file of root's, up from the working directory, that names the domain there."""

import os
import stat

NAME = ".virt-domain"
_LARGEST = 1024
_FOLDER = os.O_PATH | os.O_DIRECTORY
_DEEPEST = 4096
_BORROWED = ("SUDO_UID", "DOAS_USER", "PKEXEC_UID")


class Marker:
    """domain: str, what the file says; path: str, the file."""

    __slots__ = ("domain", "path")

    def __init__(self, domain: str, path: str) -> None:
        self.domain = domain
        self.path = path


def find(root: str, environ: "dict[str, str] | os._Environ[str]") -> "Marker | None":
    """The nearest such file, or None.

    It counts only if it is regular, root's or our own, not writable by others, small, and has one name. Not
    one below the folder root: who is root in a tree may have put it there. None under sudo, doas or
    pkexec: somebody else chose the working directory.
    """
    if any(name in environ for name in _BORROWED):
        return None
    try:
        found = os.stat(root)
        return _climb((found.st_dev, found.st_ino))
    except OSError:
        return None


def _climb(root: "tuple[int, int]") -> "Marker | None":
    here_fd = os.open(".", _FOLDER)
    inner: Marker | None = None
    path = ""
    try:
        for _ in range(_DEEPEST):
            place = os.fstat(here_fd)
            if (place.st_dev, place.st_ino) == root:
                inner = None
            if inner is None:
                inner = _read(here_fd, path)
            above_fd = os.open("..", _FOLDER, dir_fd=here_fd)
            os.close(here_fd)
            here_fd = above_fd
            above = os.fstat(here_fd)
            if (above.st_dev, above.st_ino) == (place.st_dev, place.st_ino):
                return inner
            path += "../"
        return None
    finally:
        os.close(here_fd)


def _read(folder_fd: int, path: str) -> "Marker | None":
    try:
        if not _is_trusted(os.stat(NAME, dir_fd=folder_fd, follow_symlinks=False)):
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(NAME, flags, dir_fd=folder_fd)
    except OSError:
        return None
    try:
        text = os.read(fd, _LARGEST) if _is_trusted(os.fstat(fd)) else b""
    except OSError:
        return None
    finally:
        os.close(fd)
    name = os.fsdecode(text.partition(b"\n")[0].strip())
    return Marker(name, path + NAME) if name else None


def _is_trusted(found: os.stat_result) -> bool:
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid in {0, os.geteuid()}
        and not found.st_mode & 0o022
        and found.st_nlink == 1
        and found.st_size <= _LARGEST
    )
