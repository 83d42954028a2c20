"""Doer: opens a folder after checking that nobody else can change it, or anything on the way to it.

Light enough for the fast ways.
"""

import os
import stat
from errno import ELOOP

from virttools.errors import NeedsPrivilege

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = 0o022
_MAX_LINKS = 40  # path_resolution(7)

_known: dict[str, tuple[int, int]] = {}
"""Device and inode of what an ordinary user has opened. In a user namespace of theirs (enter/userns.py)
root and all others look alike: what was found safe before is known again, not checked again."""


def open_checked(path: str, *, make: bool) -> int:
    """Open the folder for reading, making what is missing (0755, an ordinary user's 0700) if asked.

    Raises NeedsPrivilege naming what others could change; OSError.
    """
    if path in _known and os.geteuid() == 0:
        return _open_known(path)
    way = _Way(path, make=make)
    try:
        parts = os.path.join(os.getcwd(), path).split("/")
        while parts:
            parts = way.step(parts[0]) + parts[1:]
        way.check_end()
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way.fd)
    finally:
        os.close(way.fd)
    if os.geteuid() != 0:
        _known[path] = _identity(fd)
    return fd


def _open_known(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if _identity(fd) != _known[path]:
        os.close(fd)
        raise NeedsPrivilege(f"cannot use {path}: it was replaced a moment ago")
    return fd


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


class _Way:
    """Walks from / to a path; every folder and link is checked before it is relied on."""

    __slots__ = ("_links", "_make", "_path", "_trusted", "_where", "fd")

    def __init__(self, path: str, *, make: bool) -> None:
        self._path = path
        self._make = make
        self._links = 0
        self._where = "/"
        self.fd = os.open("/", _FOLDER)
        # Whoever owns / rules this machine; in a user namespace that is seldom uid 0.
        self._trusted = {0, os.geteuid(), os.fstat(self.fd).st_uid}

    def step(self, part: str) -> list[str]:
        """Go one part further; returns the parts that a link there stands for."""
        if part in ("", "."):
            return []
        where = os.path.normpath(os.path.join(self._where, part))
        found = None if part == ".." else self._look(part)
        if found is not None and stat.S_ISLNK(found.st_mode):
            return self._follow(part, where, found)
        self._enter(part, where)
        self._check(os.fstat(self.fd))
        return []

    def check_end(self) -> None:
        """The folder itself may not even be sticky and open to all: names in it mean something."""
        found = os.fstat(self.fd)
        if found.st_mode & _OTHERS_WRITE:
            raise self._writable(found)

    def _look(self, part: str) -> os.stat_result:
        try:
            return os.stat(part, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            if not self._make:
                raise
        # Whatever the umask: all may enter what is root's. Set-id programs of an ordinary user's
        # trees would run as that user for everybody, and theirs are theirs alone (as XDG has it).
        mode = 0o755 if os.geteuid() == 0 else 0o700
        os.mkdir(part, mode, dir_fd=self.fd)
        os.chmod(part, mode, dir_fd=self.fd)
        return os.stat(part, dir_fd=self.fd, follow_symlinks=False)

    def _follow(self, part: str, where: str, link: os.stat_result) -> list[str]:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP), where)
        if link.st_uid not in self._trusted:
            raise self._foreign(link, where)
        target = os.readlink(part, dir_fd=self.fd)
        if target.startswith("/"):
            self._enter("/", "/")
        return target.split("/")

    def _enter(self, part: str, where: str) -> None:
        new_fd = os.open(part, _FOLDER, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = new_fd
        self._where = where

    def _check(self, found: os.stat_result) -> None:
        if found.st_uid not in self._trusted:
            raise self._foreign(found, self._where)
        # In a sticky folder others cannot rename what we own, and what we enter next must be ours.
        if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
            raise self._writable(found)

    def _foreign(self, found: os.stat_result, where: str) -> NeedsPrivilege:
        owner = os.geteuid()
        return NeedsPrivilege(
            f"cannot use {self._path}: {where} belongs to {_user(found.st_uid)} "
            f"(mode {stat.S_IMODE(found.st_mode):04o}), who could swap what lies there",
            hint=f"chown {'-h ' if stat.S_ISLNK(found.st_mode) else ''}{owner} {_quoted(where)}",
        )

    def _writable(self, found: os.stat_result) -> NeedsPrivilege:
        who = "everyone" if found.st_mode & 0o002 else f"group {_group(found.st_gid)}"
        return NeedsPrivilege(
            f"cannot use {self._path}: {who} can write {self._where} "
            f"(mode {stat.S_IMODE(found.st_mode):04o}, owner {_user(found.st_uid)})",
            hint=f"chmod go-w {_quoted(self._where)}",
        )


def _user(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)
