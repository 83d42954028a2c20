"""Doer: makes a tree the root of a new mount namespace, by descriptors, and what lies on top of it.

Runs inside, before the program: names are bytes, places are found without following any link out.
"""

import os

from virttools import linux
from virttools.enter.confinement import ABSENT, PLAIN, cover_root, protect, protect_shared
from virttools.enter.entrance import Cell

_INSIDE = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS

# As OCI runtimes have it (readonlyPaths and maskedPaths of their default specification).
_READ_ONLY = (b"bus", b"fs", b"irq", b"sys", b"sysrq-trigger")
_MASKED = (
    b"acpi", b"asound", b"interrupts", b"kcore", b"keys", b"latency_stats", b"sched_debug", b"scsi",
    b"timer_list", b"timer_stats",
)  # fmt: skip
_NOTHING_WRITTEN = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC
_NOTHING = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC


def enter(cell: Cell) -> None:
    """Make the cell's tree the root and the working directory; the old root is gone afterwards.

    Raises OSError.
    """
    cover_root(cell.tree_mount_fd)
    if not cell.is_writable:
        protect_shared(cell.tree_mount_fd)
    if cell.has_proc:
        _mount_proc(cell)
    if cell.pts_fd >= 0:
        _attach(cell.pts_fd, cell.tree_mount_fd, b"dev/pts")
    for mount_fd, place in cell.binds:
        target_fd = linux.openat2(cell.tree_mount_fd, place, os.O_PATH, _INSIDE)
        linux.move_mount(mount_fd, target_fd)
        os.close(target_fd)
    os.fchdir(cell.tree_mount_fd)
    linux.pivot_root_here()


def _mount_proc(cell: Cell) -> None:
    """In a user namespace the kernel gives a proc only where the caller's own is whole.

    That of a container often has parts covered; then there is none inside. To show the caller's
    would show what runs outside.
    """
    try:
        mount_proc(cell.tree_mount_fd)
    except PermissionError:
        if not cell.may_lack_proc:
            raise
        cell.has_proc = False


def mount_proc(tree_fd: int) -> bool:
    """Mount a proc of this pid namespace at /proc of the tree, if that is a folder; whether it is.

    The root must still be the host's: its /dev/null covers what is masked. Raises OSError.
    """
    proc_fd = linux.make_mount(b"proc", _NOTHING)
    if not _attach(proc_fd, tree_fd, b"proc"):
        os.close(proc_fd)
        return False
    for name in _READ_ONLY:
        protect(proc_fd, name)
    # A copy can be made only of what is attached in this namespace (Linux < 6.15).
    null_fd = os.open(b"/dev/null", os.O_PATH)
    for name in _MASKED:
        _mask(proc_fd, name, null_fd)
    os.close(null_fd)
    os.close(proc_fd)
    return True


def _attach(mount_fd: int, tree_fd: int, place: bytes) -> bool:
    try:
        target_fd = linux.openat2(tree_fd, place, os.O_PATH | os.O_DIRECTORY, PLAIN)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return False
    linux.move_mount(mount_fd, target_fd)
    os.close(target_fd)
    return True


def _mask(proc_fd: int, name: bytes, null_fd: int) -> None:
    """Hide a file behind /dev/null, and a folder behind an empty one."""
    try:
        place_fd = linux.openat2(proc_fd, name, os.O_PATH, PLAIN)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return
    if os.fstat(place_fd).st_mode & 0o170000 == 0o040000:
        cover_fd = linux.make_mount(b"tmpfs", _NOTHING | linux.MOUNT_ATTR_RDONLY)
    else:
        cover_fd = linux.clone_mount(null_fd)
        # It is the host's device: root of the tree could change its mode where this were writable.
        linux.set_mount(cover_fd, attributes=_NOTHING_WRITTEN)
    linux.move_mount(cover_fd, place_fd)
    os.close(cover_fd)
    os.close(place_fd)
