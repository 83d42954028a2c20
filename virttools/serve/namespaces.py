"""Doer: builds the mount, uts and ipc namespaces of a domain once, and enters and leaves them per connection."""

import os

from virttools import linux
from virttools.serve import jail
from virttools.serve.board import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_STALE = 116  # ESTALE
_FOLDER = os.O_PATH | os.O_DIRECTORY
_MOST_KEPT = 16  # places: their descriptors cost every start of a program some 0.2 us each, opening one anew 5 us
_LONGEST_UNUSED = 4 * _MOST_KEPT


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


class _Kept:
    """What is open of a place, and when it was used."""

    __slots__ = ("fds", "turn")

    def __init__(self, fds: tuple[int, ...], turn: int) -> None:
        self.fds = fds
        self.turn = turn


class Way:
    """The way of one thread, with a root of its own (CLONE_FS), into a place and back.

    Nothing but system calls may run between `enter` and `leave`: what is looked up there is a tenant's.
    The descriptors of a place are kept open once it is entered again soon.
    """

    __slots__ = (
        "_descriptors", "_home", "_is_named", "_kept", "_missed", "_named", "_once", "_place", "_turn",
    )  # fmt: skip

    def __init__(self, home: Home, descriptors_fd: int) -> None:
        linux.unshare(linux.CLONE_FS)
        self._home = home
        self._descriptors = descriptors_fd
        self._named: Place | None = None
        self._is_named = False
        self._place: Place | None = None
        self._turn = 0
        self._kept: dict[tuple[int, ...], _Kept] = {}
        self._missed: dict[tuple[int, ...], None] = {}
        self._once: tuple[int, ...] = ()

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
        mount_fd, uts_fd, ipc_fd = self._open(numbers)
        if place is not self._named:
            self._named, self._is_named = None, True
            linux.setns(uts_fd, linux.CLONE_NEWUTS)
            linux.setns(ipc_fd, linux.CLONE_NEWIPC)
            self._named = place
        linux.setns(mount_fd, linux.CLONE_NEWNS)

    def _unname(self) -> None:
        """Have the host's name and objects again."""
        if self._is_named:
            self._home.unname()
            self._named, self._is_named = None, False

    def _open(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Descriptors of a place's namespaces: kept ones, or new ones. Raises OSError."""
        self._turn += 1
        kept = self._kept.get(numbers)
        if kept is not None:
            kept.turn = self._turn
            return kept.fds
        fds = self._open_anew(numbers)
        if numbers in self._missed:
            self._kept[numbers] = _Kept(fds, self._turn)
        else:
            self._missed[numbers] = None
            self._once = fds
        self._forget()
        return fds

    def _open_anew(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        flags, fds = os.O_RDONLY | os.O_CLOEXEC, []
        try:
            for number in numbers:
                fds.append(os.open(str(number), flags, dir_fd=self._descriptors))  # noqa: PERF401  they are closed
        except OSError:
            _close(fds)
            raise
        return tuple(fds)

    def _forget(self) -> None:
        """Close what was not used for long, or is too much."""
        if len(self._missed) > _MOST_KEPT:
            del self._missed[next(iter(self._missed))]
        if self._kept:
            oldest = min(self._kept, key=lambda numbers: self._kept[numbers].turn)
            unused = self._turn - self._kept[oldest].turn
            if len(self._kept) > _MOST_KEPT or unused > _LONGEST_UNUSED:
                _close(self._kept.pop(oldest).fds)

    def leave(self) -> None:
        """Come back. The uts and ipc namespaces stay: the next ones that are entered replace them."""
        place, self._place = self._place, None
        if self._once:
            _close(self._once)
            self._once = ()
        if place is None:
            return
        if place.isolation == "chroot":
            linux.chroot_fd(self._home.root_fd)
        else:
            linux.setns(self._home.mount_fd, linux.CLONE_NEWNS)


def _close(fds: "Iterable[int]") -> None:
    for fd in fds:
        os.close(fd)
