"""Reader: whose a sender on the shared socket is: by its pidfd and cgroup, else by its root folder.

Never by a pid alone, which another process may have by now: what cannot be proven is unknown.
"""

import os
import select
import time
from contextlib import suppress
from errno import ESRCH

from virttools import linux
from virttools.devlog import cgroups

_FRESH = 1.0
"""Seconds for which a look at cgroups and trees serves; a sender unknown since is looked up again."""

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
        """What is in a chroot of its own inside a tree stays unknown: no name leads up from there."""
        try:
            fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None  # ended, or not ours to look at: then only root may
        try:
            found = self._tree(os.fstat(fd))
        finally:
            os.close(fd)
        return found if _is_alive(pidfd) else None

    def _tree(self, folder: os.stat_result) -> str | None:
        key = folder.st_dev, folder.st_ino
        if key not in self._trees:
            self._look()
        return self._trees.get(key)

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


def _is_alive(pidfd: int) -> bool:
    """A pidfd is readable once its process ended; until then its pid is nobody else's."""
    asked = select.poll()
    asked.register(pidfd, select.POLLIN)
    return not asked.poll(0)
