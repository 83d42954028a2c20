"""The system calls that Python lacks, by ctypes: each wrapper calls, checks and raises OSError.

Constants are named as in the kernel's headers. Everything here is for Linux >= 5.6 (openat2).
"""

import ctypes
import os
import struct
from fcntl import ioctl

# typing costs start-up time; a name in quotes is enough for the type checker
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# include/uapi/linux/fs.h
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
FICLONE = 0x40049409

# include/uapi/linux/inotify.h
IN_MODIFY = 0x00000002
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000

# include/uapi/linux/close_range.h
CLOSE_RANGE_CLOEXEC = 4

# include/uapi/linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

# include/uapi/asm-generic/socket.h, include/linux/socket.h
SO_PASSPIDFD = 76
SCM_PIDFD = 4
_MSG_DONTWAIT = 0x40
_MSG_TRUNC = 0x20
_MSG_CMSG_CLOEXEC = 0x40000000

# include/uapi/linux/pidfd.h, Linux 6.13; PIDFD_INFO_EXIT 6.15
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_CGROUPID = 4
_PIDFD_INFO_EXIT = 8

# The same on every architecture since Linux 5.1 unified new numbers (asm-generic/unistd.h).
_SYS_close_range = 436
_SYS_openat2 = 437
_SYS_open_tree = 428
_SYS_move_mount = 429

# include/uapi/linux/mount.h
_MNT_DETACH = 2
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_AT_RECURSIVE = 0x8000

_AT_EMPTY_PATH = 0x1000
_OPEN_HOW = struct.Struct("=QQQ")


def _fail(path: str | bytes | None = None) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open path below dir_fd under the RESOLVE_* rules (openat2(2), Linux 5.6); O_CLOEXEC is added.

    Raises OSError: EXDEV where the path leaves dir_fd, ELOOP where it meets a forbidden link.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd: int = _syscall(_SYS_openat2, dir_fd, os.fsencode(path), how, _OPEN_HOW.size)
        if fd >= 0:
            return fd
        # EAGAIN: a rename raced with "..": the man page says to try again.
        if ctypes.get_errno() != 11:
            _fail(path)


def renameat2(src_fd: int, src: str, dst_fd: int, dst: str, flags: int) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE (renameat2(2), Linux 3.15)."""
    if _libc.renameat2(src_fd, os.fsencode(src), dst_fd, os.fsencode(dst), flags) < 0:
        _fail(dst)


def syncfs(fd: int) -> None:
    """Write back the whole file system that fd lies on (syncfs(2))."""
    if _libc.syncfs(fd) < 0:
        _fail()


def ficlone(dst_fd: int, src_fd: int) -> None:
    """Make dst_fd share src_fd's blocks (ioctl_ficlone(2)); EOPNOTSUPP, EXDEV or EINVAL where it can't."""
    ioctl(dst_fd, FICLONE, src_fd)


def link_fd(fd: int, dir_fd: int, name: str) -> None:
    """Give the open file fd a further name; never follows one (linkat(2) with AT_EMPTY_PATH).

    Needs CAP_DAC_READ_SEARCH, which root has.
    """
    if _libc.linkat(fd, b"", dir_fd, os.fsencode(name), _AT_EMPTY_PATH) < 0:
        _fail(name)


def inotify_init() -> int:
    """A queue of events of folders, to be read like a file (inotify(7))."""
    fd: int = _libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        _fail()
    return fd


def inotify_add_watch(queue_fd: int, path: str, mask: int) -> int:
    """Have the queue told of IN_* events of the folder at path; its number in what is read."""
    watch: int = _libc.inotify_add_watch(queue_fd, os.fsencode(path), mask)
    if watch < 0:
        _fail(path)
    return watch


def close_range_cloexec(first: int) -> None:
    """Mark every descriptor from first on close-on-exec (close_range(2), Linux 5.11)."""
    if _syscall(_SYS_close_range, first, ctypes.c_uint(0xFFFFFFFF), CLOSE_RANGE_CLOEXEC) < 0:
        _fail()


def chroot_fd(dir_fd: int) -> None:
    """Make the directory dir_fd the root and the working directory of this process."""
    os.fchdir(dir_fd)
    os.chroot(".")


def auxiliary_text(kind: int) -> str:
    """The text that an AT_* entry of this process's auxiliary vector points to (getauxval(3)), or ""."""
    _libc.getauxval.restype = ctypes.c_void_p
    _libc.getauxval.argtypes = (ctypes.c_ulong,)
    place = _libc.getauxval(kind)
    return ctypes.string_at(place).decode("ascii", "replace") if place else ""


def clone_mount(fd: int, path: bytes = b"") -> int:
    """A copy of what is mounted at fd and below it, attached nowhere (open_tree(2), Linux 5.2)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    cloned: int = _syscall(_SYS_open_tree, fd, path, flags)
    if cloned < 0:
        _fail(path or None)
    return cloned


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach what is attached nowhere yet at the place that target_fd is (move_mount(2))."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    if _syscall(_SYS_move_mount, mount_fd, b"", target_fd, b"", flags) < 0:
        _fail()


def detach_mount(fd: int) -> None:
    """Take away the mount whose root fd is; who has it open keeps it (umount2(2) with MNT_DETACH)."""
    if _libc.umount2(f"/proc/self/fd/{fd}".encode(), _MNT_DETACH) < 0:
        _fail()


def hide_memory() -> None:
    """Let no one without CAP_SYS_PTRACE look into this process (PR_SET_DUMPABLE, proc(5))."""
    _prctl(_PR_SET_DUMPABLE, 0)


def set_no_new_privileges() -> None:
    """Have execve(2) ignore set-id bits and file capabilities from now on."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) < 0:
        _fail()


def pidfd_cgroup(pidfd: int) -> int | None:
    """The id (inode number) of the cgroup v2 of a process, or the one it ended in; None if not known.

    Raises OSError: ENOTTY before Linux 6.13, ESRCH for a moment while a process is reaped.
    """
    info = bytearray(64)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_CGROUPID | _PIDFD_INFO_EXIT)
    ioctl(pidfd, _PIDFD_GET_INFO, info)
    mask, cgroup = struct.unpack_from("=QQ", info)
    return cgroup if mask & _PIDFD_INFO_CGROUPID and cgroup else None


class Datagrams:
    """Receives datagrams of a unix socket with SO_PASSCRED, many by one recvmmsg(2).

    Descriptors that come along have no room, and so are never ours.
    """

    MANY = 64

    __slots__ = ("_buffer", "_control", "_credentials", "_headers", "_iovecs", "_memory", "_size")

    # struct mmsghdr, and a control message with a struct ucred, as CMSG_SPACE(12) has it
    _HEADER = struct.Struct("@PIPNPNi0PI0P")
    _RESULT = struct.Struct(f"@{struct.calcsize('@PIPNPN')}xi0PI0P")
    _IOVEC = struct.Struct("@PN")
    _UCRED = struct.Struct("@NiiiII0P")

    def __init__(self, largest: int) -> None:
        self._size = largest
        self._buffer: Any = (
            ctypes.c_char * (largest * self.MANY)
        )()  # its slices are bytes at once
        self._control = bytearray(self._UCRED.size * self.MANY)
        self._iovecs = bytearray(self._IOVEC.size * self.MANY)
        self._memory = bytearray(self._HEADER.size * self.MANY)
        data = ctypes.addressof(self._buffer)
        control, iovecs = _address(self._control), _address(self._iovecs)
        for index in range(self.MANY):
            at = iovecs + index * self._IOVEC.size
            where = control + index * self._UCRED.size
            self._IOVEC.pack_into(self._iovecs, index * self._IOVEC.size, data, largest)
            header = (0, 0, at, 1, where, self._UCRED.size, 0, 0)
            self._HEADER.pack_into(self._memory, index * self._HEADER.size, *header)
            data += largest
        self._headers = ctypes.c_void_p(_address(self._memory))
        self._credentials = memoryview(self._control)

    def receive(self, fd: int) -> list[tuple[bytes, bool, int, int]]:
        """What waits, at most MANY: (data, whether it was cut, pid, uid). Raises BlockingIOError, OSError."""
        flags = _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
        count = _libc.recvmmsg(fd, self._headers, self.MANY, flags, None)
        if count < 0:
            _fail()
        if count == 1:
            told, length = self._RESULT.unpack_from(self._memory)
            _, _, _, pid, uid, _ = self._UCRED.unpack_from(self._control)
            return [(self._buffer[:length], told & _MSG_TRUNC != 0, pid, uid)]
        buffer, at, size = self._buffer, 0, self._size
        found = []
        results = self._RESULT.iter_unpack(memoryview(self._memory)[: count * self._HEADER.size])
        senders = self._UCRED.iter_unpack(self._credentials[: count * self._UCRED.size])
        for (told, length), (_, _, _, pid, uid, _) in zip(results, senders, strict=True):
            found.append((buffer[at : at + length], told & _MSG_TRUNC != 0, pid, uid))
            at += size
        return found


def _address(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
