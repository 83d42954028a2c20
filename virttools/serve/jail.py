"""Doer: makes a tree the root of a mount namespace of its own, by descriptors, for what root runs there.

The wrapper enters one for each connection, the server one for each domain.
"""

import os

from virttools import linux
from virttools.enter import confinement


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
    confinement.cover_root(mount_fd)
    confinement.protect_shared(mount_fd)
    os.fchdir(mount_fd)
    linux.pivot_root_here()


def confine() -> None:
    """As `virt exec` does (enter/confinement.py). Raises OSError."""
    confinement.confine()


def hostname(name: str) -> bytes:
    """What sethostname(2) takes of a domain's name: 64 bytes, else its first label, which is at most 63."""
    return os.fsencode(name if len(name) <= 64 else name.partition(".")[0])
