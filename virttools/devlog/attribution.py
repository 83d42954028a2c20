"""Reader: whose a sender on the shared socket is: by its pidfd and cgroup, else by its root folder.

Never by a pid alone, which another process may have by now: what cannot be proven is unknown.
"""

import fcntl  # noqa: F401  linux.pidfd_cgroup takes it when who asks is root no more, and may not reach it
import os
import select
import time
from contextlib import suppress
from errno import ESRCH

from virttools import linux
from virttools.devlog import cgroups

_FRESH = 1.0
"""Seconds for which a look at cgroups and trees serves; a sender unknown since is looked up again."""

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_DEEPEST = 256

_ATTEMPTS = 20
_PAUSE = 0.0002  # between a process's exit and its reaping the kernel says ESRCH


class Attribution:
    """Domains by what the kernel says of a process. root: the folder of the trees."""

    __slots__ = ("_cgroups", "_looked", "_mount", "_root", "_trees")

    def __init__(self, root: str, mount: str | None) -> None:
        self._root = root
        self._mount = mount
        self._cgroups: dict[int, str] = {}
        self._trees: dict[tuple[int, int], str] = {}
        self._looked = 0.0

    def domain(self, pid: int, pidfd: int | None) -> str | None:
        """The sender's domain, or None where it cannot be told."""
        if pidfd is None:
            return None
        return self._by_cgroup(pidfd) or self._by_root(pid, pidfd)

    def _by_cgroup(self, pidfd: int) -> str | None:
        number = _cgroup(pidfd)
        if number is None:
            return None
        if number not in self._cgroups:
            self._look()
        return self._cgroups.get(number)

    def _by_root(self, pid: int, pidfd: int) -> str | None:
        """By its root folder or a parent of that, as a program has it that chroots once more."""
        try:
            fd = os.open(f"/proc/{pid}/root", _FOLDER)
        except OSError:
            return None  # ended, or not ours to look at: then only root may
        try:
            found = self._climb(fd)
        except OSError:
            return None
        return found if _is_alive(pidfd) else None

    def _climb(self, fd: int) -> str | None:
        """The tree that the folder fd is or lies in; fd is closed."""
        below = None
        try:
            for _ in range(_DEEPEST):
                key = _identity(fd)
                if key not in self._trees and below is None:
                    self._look()
                if key in self._trees or key == below:
                    break
                below, above = key, os.open("..", _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = above
            return self._trees.get(_identity(fd))
        finally:
            os.close(fd)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _FRESH and self._looked:
            return
        self._looked = now
        self._cgroups = dict(cgroups.known(self._mount)) if self._mount else {}
        self._trees = {}
        with suppress(OSError), os.scandir(self._root) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    self._trees[found.st_dev, found.st_ino] = entry.name


def _cgroup(pidfd: int) -> int | None:
    for _ in range(_ATTEMPTS):
        try:
            return linux.pidfd_cgroup(pidfd)
        except OSError as error:
            if error.errno != ESRCH:
                return None  # a kernel that cannot tell
        time.sleep(_PAUSE)
    return None


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _is_alive(pidfd: int) -> bool:
    """A pidfd is readable once its process ended; until then its pid is nobody else's."""
    asked = select.poll()
    asked.register(pidfd, select.POLLIN)
    return not asked.poll(0)
