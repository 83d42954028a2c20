"""Starts `virt log serve`: sockets bound and linked, folder and account made ready, then one execve(2)."""

import os
import socket
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from errno import ELOOP, ENOTDIR

from virttools.devlog import handover, places, sockets
from virttools.devlog import relink as linking
from virttools.devlog.holder import State
from virttools.devlog.receiver import Account, Options
from virttools.errors import ApplyError, Busy, HostLacks, NeedsPrivilege, UsageError, VirtError
from virttools.manifest.model import DevLog
from virttools.tree.ground import open_checked
from virttools.tree.locks import acquire
from virttools.tree.processes import lock_holders
from virttools.tree.record import Head
from virttools.tree.root import Root, open_root

USERS = ("virtlog", "syslog", "daemon")
"""Whom the server becomes: the first of them that there is."""

READERS = "adm"
"""The group that may read the files, where it exists."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `virt log serve` was told beyond the receiver's options. shared: serve that socket as well."""

    options: Options
    folder: str | None
    user: str | None
    shared: bool


@dataclass(frozen=True, slots=True)
class Started:
    """What is ready. faults: what could not be linked, each of which the rest does without."""

    state: State
    faults: tuple[VirtError, ...]


def prepare(wanted: Wanted) -> Started:
    """Take the server's place: lock, control socket, a socket for each domain, linked into its tree.

    Raises Busy where a server runs already; NeedsPrivilege, HostLacks, ApplyError.
    """
    account = _account(wanted.user)
    with ExitStack() as held:
        root = held.enter_context(open_root(wanted.options.root, make=True))
        lock_fd = _lock(root)
        folder_fd = _open_folder(root, wanted.folder, account)
        try:
            control = handover.control(root.log_fd)  # before looking: who comes later waits there
            bound = [("", _bind_shared(root))] if wanted.shared else []
            faults = _bind_all(root, bound)
        except OSError as error:
            raise ApplyError(f"cannot serve {root.path}: {error.strerror}") from error
        state = State(
            control=control.detach(),
            lock=lock_fd,
            folder=folder_fd,
            sockets=tuple((domain, one.detach()) for domain, one in bound),
            options=wanted.options,
            account=account,
            trusted=os.geteuid(),
        )
    _raise_limit(len(bound))
    return Started(state, tuple(faults))


def _lock(root: Root) -> int:
    try:
        lock_fd = acquire(root.log_fd, places.LOCK)
    except BlockingIOError as error:
        pids = ", ".join(str(pid) for pid in lock_holders(root.log_fd, places.LOCK))
        raise Busy(
            f"cannot serve {root.path}: process {pids or 'of another namespace'} serves it",
            hint="`kill -HUP` has that one start anew, and lose nothing",
        ) from error
    os.ftruncate(lock_fd, 0)
    os.write(lock_fd, b"%d\n" % os.getpid())
    return lock_fd


# --- sockets


def _bind_all(root: Root, bound: list[tuple[str, socket.socket]]) -> list[VirtError]:
    """Bind what domains have of their own, and link all trees to what is bound now."""
    faults = []
    is_shared = bool(bound)
    for head in root.heads():
        try:
            if head.devlog is DevLog.OWN:
                with root.lock(head.domain):
                    bound.append((head.domain, sockets.bind(root, head.domain)))
                    linking.relink(root, head, bind=_is_mounted(root, head))
            elif is_shared:
                linking.relink(root, head, bind=_is_mounted(root, head))
        except VirtError as fault:
            faults.append(fault)
    return faults


def _is_mounted(root: Root, head: Head) -> bool:
    """Whether the tree lies elsewhere, so that only a mount brings the socket there."""
    found = root.look(head.domain)
    return found is not None and found.st_dev != os.fstat(root.fd).st_dev


def _bind_shared(root: Root) -> socket.socket:
    """The HOWTO's one socket, in place of what a daemon that is gone has left there."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    _refuse_heard(root)
    temporary = f".log.{os.urandom(8).hex()}"
    made.bind(f"/proc/self/fd/{root.log_fd}/{temporary}")
    os.chmod(temporary, 0o666, dir_fd=root.log_fd)  # noqa: S103  every user logs
    os.rename(temporary, places.SHARED, src_dir_fd=root.log_fd, dst_dir_fd=root.fd)
    return made


def _refuse_heard(root: Root) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller, suppress(OSError):
        caller.connect(f"/proc/self/fd/{root.fd}/{places.SHARED}")
        raise Busy(
            f"cannot serve {root.path}/{places.SHARED}: another log daemon listens there",
            hint="stop that one, or leave out --shared",
        )


# --- files


def _open_folder(root: Root, asked: str | None, account: Account | None) -> int:
    """The folder of the log files: outside the trees, ours, readable by READERS."""
    path = asked or places.logs_folder(root.path, is_root=os.geteuid() == 0)
    parent, name = os.path.split(os.path.abspath(path))
    parent_fd = open_checked(parent, make=True)
    try:
        _refuse_tree(root, parent_fd, path)
        folder_fd = _own_folder(parent_fd, name, path, account)
        os.close(_own_folder(folder_fd, places.DOMAINS, f"{path}/{places.DOMAINS}", account))
    except OSError as error:
        raise ApplyError(f"cannot write log files to {path}: {error.strerror}") from error
    finally:
        os.close(parent_fd)
    return folder_fd


def _own_folder(parent_fd: int, name: str, path: str, account: Account | None) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent_fd)
    except OSError as error:
        if error.errno in (ELOOP, ENOTDIR):
            raise NeedsPrivilege(
                f"cannot write log files to {path}: it is no folder, or a link to one",
                hint="name another one: virt log serve --folder DIR",
            ) from error
        raise
    owner = account.uid if account else os.geteuid()
    found = os.fstat(fd)
    if found.st_uid not in (0, owner, os.geteuid()):
        os.close(fd)
        raise NeedsPrivilege(
            f"cannot write log files to {path}: it belongs to user {found.st_uid}",
            hint=f"chown {owner} {path}, once you know what is in it",
        )
    os.fchown(fd, owner, _readers(account))
    os.fchmod(fd, stat.S_ISGID | 0o750)
    return fd


def _readers(account: Account | None) -> int:
    import grp

    if os.geteuid() == 0:
        with suppress(KeyError):
            return grp.getgrnam(READERS).gr_gid
    return account.gid if account else os.getegid()


def _refuse_tree(root: Root, folder_fd: int, path: str) -> None:
    """Go up from the folder: whatever lies in the root must come from .virt, not from a tree."""
    top = _identity(os.fstat(root.fd))
    virt = _identity(os.stat(".virt", dir_fd=root.fd, follow_symlinks=False))
    fd, below = os.dup(folder_fd), (0, 0)
    try:
        while (here := _identity(os.fstat(fd))) not in (below, virt):
            if here == top:
                raise UsageError(
                    f"cannot write log files to {path}: it lies among the trees of {root.path}",
                    hint=f"name a folder outside of them, such as {places.LOGS}",
                )
            above_fd = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd, below = above_fd, here
    finally:
        os.close(fd)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


# --- who serves


def _account(user: str | None) -> Account | None:
    """Whom to become; None: who we are."""
    import pwd

    if os.geteuid() != 0:
        if user is not None:
            raise NeedsPrivilege(f"cannot become {user}: only root may", hint="leave out --user")
        return None
    for name in USERS if user is None else (user,):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            if found.pw_uid == 0:
                return None
            return Account(uid=found.pw_uid, gid=found.pw_gid, groups=())
    raise HostLacks(
        f"cannot serve as {user or ', '.join(USERS)}: there is no such user",
        hint="`adduser --system virtlog` makes one, --user names another",
    )


def _raise_limit(count: int) -> None:
    """Room for a socket and a file of each domain, twice, and for those to come."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(4 * count, 65536, soft)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
