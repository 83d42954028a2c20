"""Doer: a domain's tree for a trial: an overlay, so that nothing that is done there reaches the tree.

In a mount namespace of its own, and gone with it. The tree may be hostile: below it, all by descriptor.
"""

import contextlib
import os
import secrets
import socket
from errno import EACCES, ENODEV, EPERM

from virttools import linux
from virttools.enter import inside
from virttools.enter.accounts import find_group
from virttools.errors import ApplyError, HostLacks, NeedsPrivilege
from virttools.probe import accounts
from virttools.probe.accounts import Added
from virttools.tree import beneath

_LARGEST_FILE = 16 * 2**20
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ROOM = b"64m"
"""What a trial may write at most."""

_MAIL = """\
From virt@{domain} Thu Jan  1 00:00:00 1970
From: virt@{domain}
To: {name}@{domain}
Subject: virt test

This message is here for the trial only.

"""


def cover(root: str, domain: str) -> int:
    """The tree under an overlay, attached nowhere; the caller's mount namespace is a new one.

    Raises HostLacks where the kernel has no overlay, NeedsPrivilege, ApplyError.
    """
    try:
        linux.unshare(linux.CLONE_NEWNS)
        root_fd = os.open("/", _FOLDER)
        linux.set_mount(root_fd, propagation=linux.MS_PRIVATE)
        os.close(root_fd)
        tree_fd = inside.open_tree(root, domain)
        room_fd = _make_room(root)
        options = {
            b"lowerdir": f"/proc/self/fd/{tree_fd}",
            b"upperdir": f"/proc/self/fd/{room_fd}/upper",
            b"workdir": f"/proc/self/fd/{room_fd}/work",
        }
        found = tuple((name, place.encode()) for name, place in options.items())
        return linux.make_mount(b"overlay", 0, *found)
    except OSError as error:
        raise _refusal(domain, error) from error


def _make_room(root: str) -> int:
    """A file system in memory, mounted over the empty staging folder: an overlay's must be attached."""
    room_fd = linux.make_mount(b"tmpfs", 0, (b"size", _ROOM), (b"mode", b"0755"))
    place_fd = os.open(f"{root}/.virt/staging", _FOLDER | os.O_NOFOLLOW)
    linux.move_mount(room_fd, place_fd)
    os.close(place_fd)
    os.mkdir("upper", 0o755, dir_fd=room_fd)
    os.mkdir("work", 0o755, dir_fd=room_fd)
    return room_fd


def _refusal(domain: str, error: OSError) -> Exception:
    said = f"cannot try the services of {domain}: {error.strerror}"
    if error.errno in (EPERM, EACCES):
        return NeedsPrivilege(said, hint="run it as root: a trial has mounts of its own")
    if error.errno == ENODEV:
        return HostLacks(
            f"cannot try the services of {domain}: the kernel has no overlay file system",
            hint="modprobe overlay",
        )
    return ApplyError(said, hint="a trial needs overlay mounts, with the tree below")


def add_account(mount_fd: int, domain: str, uid_base: int) -> Added:
    """An account with a home and a message in its mailbox. Raises OSError."""
    group = _read(mount_fd, "/etc/group")
    new = accounts.added(
        _read(mount_fd, "/etc/passwd"),
        _read(mount_fd, "/etc/shadow"),
        group,
        uid_base,
        password=secrets.token_hex(12),
        salt=secrets.token_hex(8),
    )
    _put(mount_fd, "etc/passwd", new.passwd, 0o644)
    _put(mount_fd, "etc/shadow", new.shadow, 0o640)
    _put(mount_fd, "etc/group", new.group, 0o644)
    _make_home(mount_fd, new)
    if inside.is_folder(mount_fd, "/var/mail"):
        text = _MAIL.format(domain=domain, name=new.login.name).encode()
        readers = find_group(group, b"mail") or new.uid
        beneath.replace_file(mount_fd, f"var/mail/{new.login.name}", text, 0o660, new.uid, readers)
    return new


def _read(mount_fd: int, path: str) -> bytes:
    return inside.read(mount_fd, path, _LARGEST_FILE) or b""


def _put(mount_fd: int, path: str, text: bytes, mode: int) -> None:
    """Write a file anew, for the group that it was of."""
    seen = inside.status(mount_fd, f"/{path}")
    beneath.replace_file(mount_fd, path, text, mode, 0, 0 if seen is None else seen.st_gid)


def _make_home(mount_fd: int, new: Added) -> None:
    above, _, name = new.home.lstrip("/").rpartition("/")
    if not inside.is_folder(mount_fd, f"/{above}"):
        os.mkdir(above, 0o755, dir_fd=mount_fd)
    above_fd = beneath.open_beneath(mount_fd, above, _FOLDER)
    os.mkdir(name, 0o700, dir_fd=above_fd)
    os.chown(name, new.uid, new.uid, dir_fd=above_fd, follow_symlinks=False)
    os.close(above_fd)


def listen_to_log(mount_fd: int) -> socket.socket | None:
    """A socket of ours at the tree's dev/log: what is said during a trial is heard by the trial only."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        dev_fd = beneath.open_beneath(mount_fd, "dev", _FOLDER)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("log", dir_fd=dev_fd)
        log.bind(f"/proc/self/fd/{dev_fd}/log")
        os.chmod("log", 0o666, dir_fd=dev_fd)  # noqa: S103  as dev/log is
        os.close(dev_fd)
    except OSError:
        log.close()
        return None
    return log
