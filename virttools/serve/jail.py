"""Doer: makes a tree the root of a mount namespace of its own, by descriptors, for what root runs there.

The wrapper enters one for each connection, the server one for each domain.
"""

import os

from virttools import linux
from virttools.tree.shared import FOLDERS

_SHARED = tuple(name.encode() for name in FOLDERS)
_PLAIN = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS
_ABSENT = (2, 20, 40)  # ENOENT, ENOTDIR, ELOOP

_KEPT = (
    linux.CAP_CHOWN, linux.CAP_DAC_OVERRIDE, linux.CAP_FOWNER, linux.CAP_FSETID, linux.CAP_KILL,
    linux.CAP_SETGID, linux.CAP_SETUID, linux.CAP_SETPCAP, linux.CAP_NET_BIND_SERVICE,
    linux.CAP_SYS_CHROOT, linux.CAP_AUDIT_WRITE, linux.CAP_SETFCAP,
)  # fmt: skip
KEPT_CAPABILITIES = sum(1 << number for number in _KEPT)
"""What root of a tree may (DESIGN 7.6). Not mount, mknod, ptrace or open_by_handle_at: ways out."""


def clone(tree_fd: int) -> int:
    """The tree with what is mounted in it, as a private mount that is attached nowhere yet.

    To be made before the namespaces are left: only what is attached there can be copied.
    Raises OSError.
    """
    mount_fd = linux.clone_mount(tree_fd)
    linux.set_mount(mount_fd, propagation=linux.MS_PRIVATE)
    return mount_fd


def enter(mount_fd: int, hostname: bytes) -> None:
    """Leave the host's mounts and host name for the tree's; "/" is the tree and "." is "/" then.

    Of the tree, what other trees share is read-only. The calling thread's, if its CLONE_FS is its
    own, else the whole process's. Raises OSError.
    """
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS)
    linux.sethostname(hostname)
    root_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY)
    linux.set_mount(root_fd, propagation=linux.MS_PRIVATE)
    linux.move_mount(mount_fd, root_fd)
    os.close(root_fd)
    for name in _SHARED:
        _protect(mount_fd, name)
    os.fchdir(mount_fd)
    linux.pivot_root_here()


def confine() -> None:
    """Take from this process, and from all it becomes, what would let root out of the tree again.

    Raises OSError.
    """
    linux.bound_capabilities(KEPT_CAPABILITIES)


def hostname(name: str) -> bytes:
    """What sethostname(2) takes of a domain's name: 64 bytes, else its first label, which is at most 63."""
    return os.fsencode(name if len(name) <= 64 else name.partition(".")[0])


def _protect(mount_fd: int, name: bytes) -> None:
    """Mount a folder over itself, read-only; a link is nothing to protect."""
    try:
        place_fd = linux.openat2(mount_fd, name, os.O_PATH, _PLAIN)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return
    copy_fd = linux.clone_mount(place_fd)
    linux.set_mount(copy_fd, attributes=linux.MOUNT_ATTR_RDONLY)
    linux.move_mount(copy_fd, place_fd)
    os.close(copy_fd)
    os.close(place_fd)
