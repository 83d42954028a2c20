"""Doer: builds the mount, uts and ipc namespaces of a domain once, and enters and leaves them per connection."""

import os

from virttools import linux
from virttools.serve import jail
from virttools.serve.board import Place

_STALE = 116  # ESTALE
_FOLDER = os.O_PATH | os.O_DIRECTORY
_MOST_KEPT = 48  # descriptors: each costs every start some 0.08 us, opening one anew 5 us


class Home:
    """The namespaces that this process came from, to build others from and return to."""

    __slots__ = ("ipc_fd", "mount_fd", "root_fd", "uts_fd")

    def __init__(self) -> None:
        self.mount_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.uts_fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
        self.ipc_fd = os.open("/proc/self/ns/ipc", os.O_RDONLY)
        self.root_fd = os.open("/", _FOLDER)

    def back(self) -> None:
        linux.setns(self.mount_fd, linux.CLONE_NEWNS)
        self.unname()

    def unname(self) -> None:
        linux.setns(self.uts_fd, linux.CLONE_NEWUTS)
        linux.setns(self.ipc_fd, linux.CLONE_NEWIPC)


def build(home: Home, place: Place) -> tuple[int, int, int]:
    """Descriptors of a mount namespace whose root is the place's folder, and of its uts and ipc namespaces.

    The process must have one thread. Raises OSError, ESTALE where another tree lies there by now.
    """
    here_fd = os.open("/proc/self/ns", _FOLDER)
    tree_fd = os.open(place.folder, _FOLDER | os.O_NOFOLLOW)
    try:
        seen = os.fstat(tree_fd)
        if (seen.st_dev, seen.st_ino) != place.identity:
            raise OSError(_STALE, os.strerror(_STALE))
        clone_fd = jail.clone(tree_fd)
        linux.unshare(linux.CLONE_NEWIPC)
        jail.enter(clone_fd, jail.hostname(place.hostname))
        os.close(clone_fd)
        mount_fd = os.open("mnt", os.O_RDONLY, dir_fd=here_fd)
        uts_fd = os.open("uts", os.O_RDONLY, dir_fd=here_fd)
        ipc_fd = os.open("ipc", os.O_RDONLY, dir_fd=here_fd)
    finally:
        home.back()
        os.close(tree_fd)
        os.close(here_fd)
    return mount_fd, uts_fd, ipc_fd


class Way:
    """The way of one thread, with a root of its own (CLONE_FS), into a place and back.

    Nothing but system calls may run between `enter` and `leave`: what is looked up there is a tenant's.
    The descriptors of the places that were entered of late are kept open.
    """

    __slots__ = ("_descriptors", "_home", "_is_named", "_kept", "_named", "_place")

    def __init__(self, home: Home, descriptors_fd: int) -> None:
        linux.unshare(linux.CLONE_FS)
        self._home = home
        self._descriptors = descriptors_fd
        self._named: Place | None = None
        self._is_named = False
        self._place: Place | None = None
        self._kept: dict[int, int] = {}

    def enter(self, place: Place, numbers: tuple[int, ...]) -> None:
        """Enter; numbers: the supervisor's descriptors of the namespaces, in /proc/SUPERVISOR/fd."""
        if place.isolation != "namespace":
            self._unname()
        if place.isolation == "none":
            return
        self._place = place
        if place.isolation == "chroot":
            os.chroot(place.folder)
            os.chdir("/")
            return
        if place is not self._named:
            self._named, self._is_named = None, True
            self._join(numbers[1], linux.CLONE_NEWUTS)
            self._join(numbers[2], linux.CLONE_NEWIPC)
            self._named = place
        self._join(numbers[0], linux.CLONE_NEWNS)

    def _unname(self) -> None:
        """Have the host's name and objects again."""
        if self._is_named:
            self._home.unname()
            self._named, self._is_named = None, False

    def _join(self, number: int, kind: int) -> None:
        fd = self._kept.get(number)
        if fd is None:
            fd = self._keep(number)
        linux.setns(fd, kind)

    def _keep(self, number: int) -> int:
        if len(self._kept) >= _MOST_KEPT:
            os.close(self._kept.pop(next(iter(self._kept))))
        fd = os.open(str(number), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._descriptors)
        self._kept[number] = fd
        return fd

    def leave(self) -> None:
        """Come back. The uts and ipc namespaces stay: the next ones that are entered replace them."""
        place, self._place = self._place, None
        if place is None:
            return
        if place.isolation == "chroot":
            linux.chroot_fd(self._home.root_fd)
        else:
            linux.setns(self._home.mount_fd, linux.CLONE_NEWNS)
