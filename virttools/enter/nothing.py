"""Doer: a null device of our own, for programs of tenants: the host's could lose its mode by it.

What root of a tree holds open, it may fchmod(2), fchown(2) and lock, wherever the file lies.
"""

import os
import stat

from virttools import linux

_NULL = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt


def open_null() -> int:
    """A descriptor of a fresh null device that has no name any more, so nobody else can open it; CLOEXEC.

    Who may not make devices has the host's, or, being root of a container, an empty file that stays so.
    """
    try:
        return _make()
    except OSError:
        if os.geteuid() != 0:
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return _empty()


def _make() -> int:
    mount_fd = linux.make_mount(b"tmpfs", linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC)
    try:
        os.mknod("null", stat.S_IFCHR | 0o666, _NULL, dir_fd=mount_fd)
        return os.open("null", os.O_RDWR | os.O_CLOEXEC, dir_fd=mount_fd)
    finally:
        os.close(mount_fd)


def _empty() -> int:
    import fcntl

    empty_fd = os.memfd_create("nothing", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(empty_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return empty_fd
