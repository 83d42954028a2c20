"""Doer: mounts a socket at a tree's dev/log where that lies on another file system, and no link can."""

import os
import stat
from contextlib import suppress
from errno import ELOOP

from virttools import linux
from virttools.devlog import places
from virttools.errors import ApplyError, NeedsPrivilege
from virttools.tree.root import Root

_SEEN = os.O_PATH | os.O_NOFOLLOW


def mount(root: Root, source: str, dev_fd: int, domain: str) -> bool:
    """Mount the socket over dev/log, in place of one that went stale; whether it had to be done.

    It goes stale as a link does when a daemon binds anew, and is gone after a restart of the machine.
    Raises ApplyError, NeedsPrivilege.
    """
    try:
        source_fd = os.open(source, _SEEN, dir_fd=root.fd)
        try:
            return _mount(source_fd, dev_fd)
        finally:
            os.close(source_fd)
    except OSError as error:
        what = f"cannot mount {root.path}/{source} at /dev/log of {domain}: {error.strerror}"
        if isinstance(error, PermissionError):
            raise NeedsPrivilege(what, hint="run it as root") from error
        raise ApplyError(what, hint="look what lies at /dev/log of that tree") from error


def _mount(source_fd: int, dev_fd: int) -> bool:
    wanted, folder = os.fstat(source_fd), os.fstat(dev_fd)
    target_fd = _open_target(dev_fd)
    try:
        there = os.fstat(target_fd)
        if (wanted.st_dev, wanted.st_ino) == (there.st_dev, there.st_ino):
            return False
        while os.fstat(target_fd).st_dev != folder.st_dev:  # one of ours that went stale
            linux.detach_mount(target_fd)
            os.close(target_fd)
            target_fd = _open_target(dev_fd)
        _attach(source_fd, target_fd)
        return True
    finally:
        os.close(target_fd)


def _attach(source_fd: int, target_fd: int) -> None:
    mount_fd = linux.clone_mount(source_fd)
    try:
        linux.move_mount(mount_fd, target_fd)
    finally:
        os.close(mount_fd)


def _open_target(dev_fd: int) -> int:
    """What is to be mounted over, made if it is not there. Raises OSError where it is a link or a folder."""
    with suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(places.NAME, flags, 0o600, dir_fd=dev_fd))
    fd = os.open(places.NAME, _SEEN, dir_fd=dev_fd)
    found = os.fstat(fd)
    if stat.S_ISLNK(found.st_mode) or stat.S_ISDIR(found.st_mode):
        os.close(fd)
        raise OSError(ELOOP, "it is a link or a folder", places.NAME)
    return fd
