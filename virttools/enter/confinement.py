"""Doer: what holds root in a tree, whoever enters it: capabilities, the root, what may not be written.

One place for `virt exec`, virtuald and the server, so that none of them holds less than the others.
"""

import os

from virttools import linux
from virttools.enter import keyrings
from virttools.tree.shared import FOLDERS

_SHARED = tuple(name.encode() for name in FOLDERS)
PLAIN = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS
ABSENT = (2, 20, 40)  # ENOENT, ENOTDIR, ELOOP

_KEPT = (
    linux.CAP_CHOWN, linux.CAP_DAC_OVERRIDE, linux.CAP_FOWNER, linux.CAP_FSETID, linux.CAP_KILL,
    linux.CAP_SETGID, linux.CAP_SETUID, linux.CAP_SETPCAP, linux.CAP_NET_BIND_SERVICE,
    linux.CAP_SYS_CHROOT, linux.CAP_AUDIT_WRITE, linux.CAP_SETFCAP,
)  # fmt: skip
KEPT_CAPABILITIES = sum(1 << number for number in _KEPT)
"""What root of a tree may (DESIGN 7.6). Not mount, mknod, ptrace or open_by_handle_at: ways out."""


def confine() -> None:
    """Take from this process, and from all it becomes, what would let root out of the tree again.

    Raises OSError.
    """
    linux.filter_calls(keyrings.filter_program())  # first: that takes a capability which goes
    linux.bound_capabilities(KEPT_CAPABILITIES)


def cover_root(mount_fd: int) -> None:
    """Mount a tree over the root of this mount namespace, which hears of no other. Raises OSError."""
    root_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY)
    linux.set_mount(root_fd, propagation=linux.MS_PRIVATE)
    linux.move_mount(mount_fd, root_fd)
    os.close(root_fd)


def protect_shared(mount_fd: int) -> None:
    """Make the folders read-only whose files other trees may share. Raises OSError."""
    for name in _SHARED:
        protect(mount_fd, name)


def protect(dir_fd: int, name: bytes) -> None:
    """Mount what is there over itself, read-only; a link is nothing to protect. Raises OSError."""
    try:
        place_fd = linux.openat2(dir_fd, name, os.O_PATH, PLAIN)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return
    copy_fd = linux.clone_mount(place_fd)
    linux.set_mount(copy_fd, attributes=linux.MOUNT_ATTR_RDONLY)
    linux.move_mount(copy_fd, place_fd)
    os.close(copy_fd)
    os.close(place_fd)
