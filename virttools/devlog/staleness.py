"""Reader: what lies at the dev/log of a domain, and whether somebody listens; freshness.py judges it.

Two names are one socket where device and inode agree; the kernel knows who has which inode bound.
"""

import os
import socket
import stat
import struct
from collections.abc import Iterable
from errno import ECONNREFUSED, ELOOP, ENOENT, ENOTDIR, EPROTOTYPE

from virttools.devlog import places
from virttools.devlog.freshness import Found, Node
from virttools.manifest.model import DevLog
from virttools.tree.beneath import open_beneath, open_in_root
from virttools.tree.record import Head

_FOLDER = os.O_PATH | os.O_DIRECTORY

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_UDIAG_SHOW_VFS = 2
_UNIX_DIAG_VFS = 1
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBHIII8s")
_ANSWER = struct.Struct("=BBBBI8s")


def source_of(head: Head) -> str:
    """The socket that a domain's dev/log is to be, relative to the root."""
    return places.SHARED if head.devlog is DevLog.SHARED else places.socket_file(head.domain)


def node(dir_fd: int, path: str) -> Node | None:
    """The inode at a path that is ours; a link is not followed."""
    try:
        return _node(os.stat(path, dir_fd=dir_fd, follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _node(found: os.stat_result) -> Node:
    return Node(found.st_dev, found.st_ino, stat.S_ISSOCK(found.st_mode))


def find(tree_fd: int, source: Node | None, bound: frozenset[tuple[int, int]]) -> Found:
    """Look at a tree's dev/log as a program inside would meet it, and hold what is there meanwhile."""
    try:
        dev_fd = open_beneath(tree_fd, places.DEV, _FOLDER)
    except OSError as error:
        return Found(source=source, cause=folder_fault(error))
    try:
        device = os.fstat(dev_fd).st_dev
        link_fd = open_in_root(tree_fd, f"{places.DEV}/{places.NAME}", os.O_PATH)
    except OSError as error:
        if error.errno == ENOENT:
            return Found(source=source, device=os.fstat(dev_fd).st_dev)
        return Found(source=source, cause=f"/dev/log leads nowhere ({error.strerror})")
    finally:
        os.close(dev_fd)
    try:
        link = _node(os.fstat(link_fd))
        if not link.is_socket:
            kind = stat.filemode(os.fstat(link_fd).st_mode)[0]
            return Found(source=source, device=device, link=link, cause=_no_socket(kind))
        heard = (link.device, link.inode) in bound or is_heard(link_fd)
        return Found(source=source, device=device, link=link, is_heard=heard)
    finally:
        os.close(link_fd)


_KINDS = {"-": "a file", "d": "a folder", "p": "a fifo", "c": "a device", "b": "a device"}


def _no_socket(kind: str) -> str:
    return f"/dev/log is {_KINDS.get(kind, 'something else')}, not a socket"


def folder_fault(error: OSError) -> str | None:
    """Why a tree's /dev cannot be entered; None where it just is not there."""
    if error.errno == ENOENT:
        return None
    if error.errno in (ELOOP, ENOTDIR):
        return "its /dev is no folder, or a link to one"
    return f"its /dev cannot be opened ({error.strerror})"


def is_heard(socket_fd: int) -> bool:
    """Whether somebody has the socket bound: by connecting, which sends nothing.

    socket_fd: O_PATH. Sees listeners in every network namespace, where NETLINK_SOCK_DIAG sees its own.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        try:
            caller.connect(f"/proc/self/fd/{socket_fd}")
        except OSError as error:
            if error.errno in (ECONNREFUSED, ENOENT):
                return False
            return error.errno == EPROTOTYPE  # a stream socket listens, syslog(3) tries that too
        return True


def bound_inodes() -> frozenset[tuple[int, int]]:
    """(st_dev, st_ino) of every unix socket that somebody receives on; empty where the kernel does not tell."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as asked:  # NETLINK_SOCK_DIAG
            question = _QUESTION.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _UDIAG_SHOW_VFS, b"")
            size = _HEADER.size + len(question)
            asked.send(
                _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + question
            )
            found: set[tuple[int, int]] = set()
            while _read(asked.recv(1 << 18), found):
                pass
            return frozenset(found)
    except OSError:
        return frozenset()


def _read(packet: bytes, found: set[tuple[int, int]]) -> bool:
    """Take the inodes out of one packet; whether more packets follow."""
    at = 0
    while at + _HEADER.size <= len(packet):
        size, kind, *_ = _HEADER.unpack_from(packet, at)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR) or size < _HEADER.size:
            return False
        message = packet[at + _HEADER.size : at + size]
        _, kind_of_socket, state, *_ = _ANSWER.unpack_from(message)
        if kind_of_socket == socket.SOCK_DGRAM or state == _TCP_LISTEN:
            found.update(_inodes(message[_ANSWER.size :]))
        at += (size + 3) & ~3
    return True


def _inodes(attributes: bytes) -> Iterable[tuple[int, int]]:
    at = 0
    while at + 4 <= len(attributes):
        size, kind = struct.unpack_from("=HH", attributes, at)
        if size < 4:
            return
        if kind == _UNIX_DIAG_VFS:
            inode, device = struct.unpack_from("=II", attributes, at + 4)
            # The kernel's own dev_t: twelve bits of major, twenty of minor (linux/kdev_t.h).
            yield os.makedev(device >> 20, device & 0xFFFFF), inode
        at += (size + 3) & ~3
