"""The system calls that Python lacks, by _ctypes: each wrapper calls, checks and raises OSError.

Constants are named as in the kernel's headers. For Linux >= 5.6 (openat2), mounts >= 5.12.
"""

import os
import sys

# What ctypes itself stands on: the rest of it would cost every command a millisecond more.
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    dlopen,
    get_errno,
)

# typing costs start-up time, and _SimpleCData is no generic when it runs
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Simple = _SimpleCData[Any]
else:
    _Simple = _SimpleCData


class _Int(_Simple):
    _type_ = "i"


class _Long(_Simple):
    _type_ = "l"


class _Unsigned(_Simple):
    """As wide as a pointer."""

    _type_ = "L"


class _Text(_Simple):
    """A pointer to bytes that end with NUL, or NULL."""

    _type_ = "z"


class _Function(CFuncPtr):
    """A function of the C library: returns an int, sets errno."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _Library:
    """What this process has loaded; an attribute is the function of that name."""

    def __init__(self) -> None:
        self._handle = dlopen(None, 0)  # type: ignore[arg-type]  # NULL: this process itself

    def __getattr__(self, name: str) -> _Function:
        function = _Function((name, self))  # type: ignore[arg-type]  # any object with a _handle
        setattr(self, name, function)
        return function


_libc = _Library()
_syscall = _libc.syscall
_syscall.restype = _Long

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
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000
IN_ISDIR = 0x40000000

# include/uapi/linux/close_range.h
CLOSE_RANGE_CLOEXEC = 4

# include/uapi/asm-generic/socket.h, include/linux/socket.h
SO_PASSPIDFD = 76
SCM_PIDFD = 4

# include/uapi/linux/pidfd.h, Linux 6.13; PIDFD_INFO_EXIT 6.15
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_CGROUPID = 4
_PIDFD_INFO_EXIT = 8

# The same on every architecture since Linux 5.1 unified new numbers (asm-generic/unistd.h).
_SYS_close_range = 436
_SYS_openat2 = 437
_SYS_open_tree = 428
_SYS_move_mount = 429
_SYS_fsopen = 430
_SYS_fsconfig = 431
_SYS_fsmount = 432
_SYS_mount_setattr = 442

# include/uapi/linux/sched.h
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

# include/uapi/linux/mount.h
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

# include/uapi/asm-generic/unistd.h, linux/keyctl.h, linux/seccomp.h
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

# include/uapi/linux/capability.h
CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_SYS_CHROOT = 18
CAP_AUDIT_WRITE = 29
CAP_SETFCAP = 31
_CAPABILITY_VERSION_3 = 0x20080522

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000


def _fail(path: str | bytes | None = None) -> None:
    number = get_errno()
    raise OSError(number, os.strerror(number), path)


def _words(size: int, *numbers: int) -> bytes:
    """Unsigned numbers of that many bytes each, in a row; struct would cost each start half a millisecond."""
    return b"".join([number.to_bytes(size, sys.byteorder) for number in numbers])


def openat2(dir_fd: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open path below dir_fd under the RESOLVE_* rules (openat2(2), Linux 5.6); O_CLOEXEC is added.

    Raises OSError: EXDEV where the path leaves dir_fd, ELOOP where it meets a forbidden link.
    """
    how = _words(8, flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd: int = _syscall(_SYS_openat2, dir_fd, os.fsencode(path), how, len(how))
        if fd >= 0:
            return fd
        # EAGAIN: a rename raced with "..": the man page says to try again.
        if get_errno() != 11:
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
    from fcntl import ioctl

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


def inotify_rm_watch(queue_fd: int, watch: int) -> None:
    """Have the queue told no more of a folder, by its number, but that this is so (IN_IGNORED)."""
    if _libc.inotify_rm_watch(queue_fd, watch) < 0:
        _fail()


def close_range_cloexec(first: int) -> None:
    """Mark every descriptor from first on close-on-exec (close_range(2), Linux 5.11)."""
    if _syscall(_SYS_close_range, first, _Unsigned(0xFFFFFFFF), CLOSE_RANGE_CLOEXEC) < 0:
        _fail()


def chroot_fd(dir_fd: int) -> None:
    """Make the directory dir_fd the root and the working directory of this process."""
    os.fchdir(dir_fd)
    os.chroot(".")


def auxiliary_text(kind: int) -> str:
    """The text that an AT_* entry of this process's auxiliary vector points to (getauxval(3)), or ""."""
    _libc.getauxval.restype = _Text
    text = _libc.getauxval(_Unsigned(kind))
    return text.decode("ascii", "replace") if text else ""


def unshare(flags: int) -> None:
    """Leave the caller's namespaces for new ones (unshare(2)); CLONE_NEWPID is about its children."""
    if _libc.unshare(flags) < 0:
        _fail()


def setns(fd: int, kind: int) -> None:
    """Have the calling thread join the namespace that fd is of, of that CLONE_NEW* kind (setns(2))."""
    if _libc.setns(fd, kind) < 0:
        _fail()


def signalfd(*numbers: int) -> int:
    """A descriptor to read those signals from, which are to be blocked (signalfd(2)); never waits."""
    mask = sum(1 << (number - 1) for number in numbers).to_bytes(128, "little")  # a sigset_t
    fd: int = _libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        _fail()
    return fd


def sethostname(name: bytes) -> None:
    """Set the host name of this uts namespace, at most 64 bytes (sethostname(2))."""
    if _libc.sethostname(name, len(name)) < 0:
        _fail()


def clone_mount(fd: int, path: bytes = b"") -> int:
    """A copy of what is mounted at fd and below it, attached nowhere (open_tree(2), Linux 5.2)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    cloned: int = _syscall(_SYS_open_tree, fd, path, flags)
    if cloned < 0:
        _fail(path or None)
    return cloned


def set_mount(fd: int, *, attributes: int = 0, propagation: int = 0) -> None:
    """Add MOUNT_ATTR_* to all mounts at fd and below it (mount_setattr(2), Linux 5.12)."""
    wanted = _words(8, attributes, 0, propagation, 0)
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    if _syscall(_SYS_mount_setattr, fd, b"", flags, wanted, len(wanted)) < 0:
        _fail()


def make_mount(kind: bytes, attributes: int, *options: tuple[bytes, bytes]) -> int:
    """A new file system of that kind, attached nowhere (fsopen(2) and fsmount(2), Linux 5.2)."""
    context: int = _syscall(_SYS_fsopen, kind, _FSOPEN_CLOEXEC)
    if context < 0:
        _fail(kind)
    try:
        for key, value in options:
            if _syscall(_SYS_fsconfig, context, _FSCONFIG_SET_STRING, key, value, 0) < 0:
                _fail(kind)
        if _syscall(_SYS_fsconfig, context, _FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            _fail(kind)
        fd: int = _syscall(_SYS_fsmount, context, _FSMOUNT_CLOEXEC, attributes)
        if fd < 0:
            _fail(kind)
    finally:
        os.close(context)
    return fd


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach what is attached nowhere yet at the place that target_fd is (move_mount(2))."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    if _syscall(_SYS_move_mount, mount_fd, b"", target_fd, b"", flags) < 0:
        _fail()


def pivot_root_here() -> None:
    """Make the working directory, a mount, the root, and detach the old one (pivot_root(2))."""
    if _libc.pivot_root(b".", b".") < 0 or _libc.umount2(b".", _MNT_DETACH) < 0:
        _fail()


def set_death_signal(number: int) -> None:
    """Have the kernel send this process that signal when its parent ends (PR_SET_PDEATHSIG)."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Be the parent of what descendants leave behind (PR_SET_CHILD_SUBREAPER)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def detach_mount(fd: int) -> None:
    """Take away the mount whose root fd is; who has it open keeps it (umount2(2) with MNT_DETACH)."""
    if _libc.umount2(f"/proc/self/fd/{fd}".encode(), _MNT_DETACH) < 0:
        _fail()


def hide_memory() -> None:
    """Let no one without CAP_SYS_PTRACE look into this process (PR_SET_DUMPABLE, proc(5))."""
    _prctl(_PR_SET_DUMPABLE, 0)


def set_name(name: bytes) -> None:
    """Have ps(1) call this process so, at most 15 bytes (PR_SET_NAME)."""
    if _libc.prctl(_PR_SET_NAME, name, 0, 0, 0) < 0:
        _fail()


def set_no_new_privileges() -> None:
    """Have execve(2) ignore set-id bits and file capabilities from now on."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def pidfd_cgroup(pidfd: int) -> int | None:
    """The id (inode number) of the cgroup v2 of a process, or the one it ended in; None if not known.

    Raises OSError: ENOTTY before Linux 6.13, ESRCH for a moment while a process is reaped.
    """
    import struct
    from fcntl import ioctl

    info = bytearray(64)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_CGROUPID | _PIDFD_INFO_EXIT)
    ioctl(pidfd, _PIDFD_GET_INFO, info)
    mask, cgroup = struct.unpack_from("=QQ", info)
    return cgroup if mask & _PIDFD_INFO_CGROUPID and cgroup else None


def bound_capabilities(kept: int) -> None:
    """Drop all but kept (a bit mask) from the bounding set, and all ambient ones, for good."""
    for number in range(64):
        if kept >> number & 1:
            continue
        if _libc.prctl(_PR_CAPBSET_DROP, _Unsigned(number), 0, 0, 0) < 0:
            if number > CAP_SETFCAP and get_errno() == 22:  # EINVAL: past the last one
                break
            _fail()
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def set_capabilities(kept: int) -> None:
    """Have exactly kept (a bit mask) permitted and effective, and none inheritable (capset(2))."""
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = _words(4, _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, _words(4, low, low, 0, high, high, 0)) < 0:
        _fail()


def filter_calls(program: bytes) -> None:
    """Have the kernel judge all system calls of this process, and of all it becomes, by a filter.

    program: instructions of classic BPF over struct seccomp_data (seccomp(2)). Needs CAP_SYS_ADMIN or
    no_new_privs. Raises OSError; a kernel without seccomp filters goes without.
    """
    address = memoryview(_Text(program)).tobytes()
    header = _words(2, len(program) // 8).ljust(len(address), b"\0") + address
    zero = _Unsigned(0)
    if (
        _libc.prctl(_PR_SET_SECCOMP, _Unsigned(_SECCOMP_MODE_FILTER), header, zero, zero) < 0
        and get_errno() != 22  # EINVAL
    ):
        _fail()


def leave_session_keyring() -> None:
    """Have a session keyring of our own, an empty one, instead of the caller's. No matter where there is none."""
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        _syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


def _prctl(option: int, value: int) -> None:
    zero = _Unsigned(0)
    if _libc.prctl(option, _Unsigned(value), zero, zero, zero) < 0:
        _fail()


def overwrite(address: int, size: int, text: bytes) -> None:
    """Overwrite memory of this process with text, shorter than size, and zeros."""
    _libc.memset(_Unsigned(address), 0, _Unsigned(size))
    _libc.memcpy(_Unsigned(address), text, _Unsigned(len(text)))


def trim_memory() -> None:
    """Give free memory back to the kernel (malloc_trim(3); musl has none)."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def unlockpt(master_fd: int) -> None:
    """Let the other side of a pseudo-terminal be opened (unlockpt(3))."""
    if _libc.unlockpt(master_fd) < 0:
        _fail()


class Execution:
    """execve(2) with everything made ready beforehand, and no link followed at the last name."""

    __slots__ = ("_argv", "_env", "_name")

    def __init__(self, name: bytes, argv: list[bytes], env: dict[bytes, bytes]) -> None:
        words = [key + b"=" + value for key, value in env.items()]
        self._name = name
        self._argv = (_Text * (len(argv) + 1))(*argv, None)
        self._env = (_Text * (len(words) + 1))(*words, None)

    def begin(self, dir_fd: int) -> None:
        """Become the program of that name in the folder dir_fd. Comes back only by OSError."""
        _libc.execveat(dir_fd, self._name, self._argv, self._env, _AT_SYMLINK_NOFOLLOW)
        _fail()
