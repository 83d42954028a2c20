"""Doer: this process becomes a service's program inside a tree; from the entrance on, system calls only."""

import os

from virttools import linux
from virttools.enter import signals
from virttools.enter.accounts import Account
from virttools.enter.entrance import cause
from virttools.errors import EnterError, NeedsPrivilege
from virttools.serve import jail

HOST = "host"
CHROOT = "chroot"
NAMESPACE = "namespace"


class Start:
    """All that is needed, made ready and encoded beforehand; path is as seen inside.

    way: HOST, CHROOT or NAMESPACE. account None leaves the ids as they are. What fails inside is
    written to fail_fd, after prefix.
    """

    __slots__ = (
        "account", "argv", "env", "fail_fd", "hostname", "path", "prefix", "tree_fd", "way",
    )  # fmt: skip

    def __init__(self, tree_fd: int, path: str, argv: list[str], env: dict[bytes, bytes]) -> None:
        self.tree_fd = tree_fd
        self.path = os.fsencode(path)
        self.argv = [os.fsencode(word) for word in argv]
        self.env = env
        self.account: Account | None = None
        self.way = NAMESPACE
        self.hostname = b""
        self.fail_fd = 2
        self.prefix = b""


def become(start: Start) -> int:
    """Become the program. Comes back, with the exit status for this process, only where it failed.

    Descriptors from 3 on close, signals are as at birth, umask is 022 (DESIGN 7.5).
    Raises NeedsPrivilege, EnterError where the tree could not be entered at all.
    """
    os.umask(0o022)
    signals.reset()
    linux.close_range_cloexec(3)
    try:
        _enter(start)
    except PermissionError as error:
        raise NeedsPrivilege(
            f"cannot enter the tree: {error.strerror}", hint="it needs root with CAP_SYS_ADMIN"
        ) from error
    except OSError as error:
        raise EnterError(f"cannot enter the tree: {error.strerror}") from error
    # From here on the tree is "/". An import, a codec, a traceback or a look-up by name would read
    # its files as root (DESIGN 7.4): whatever happens, this process does not come back.
    status = 125
    try:
        if start.account is not None:
            os.setgroups(start.account.groups)
            os.setresgid(start.account.gid, start.account.gid, start.account.gid)
            os.setresuid(start.account.uid, start.account.uid, start.account.uid)
        status = 126
        os.execve(start.path, start.argv, start.env)
    except OSError as error:
        _fail(start, status, error.errno or 0)
    finally:
        os._exit(status)


def _enter(start: Start) -> None:
    if start.way == NAMESPACE:
        mount_fd = jail.clone(start.tree_fd)
        jail.confine()
        jail.enter(mount_fd, start.hostname)
    elif start.way == CHROOT:
        linux.chroot_fd(start.tree_fd)
    else:
        os.chdir("/")


def _fail(start: Start, status: int, number: int) -> None:
    why = cause(number) if status == 126 else os.strerror(number).encode()
    try:  # noqa: SIM105  contextlib would be loaded for every connection
        os.write(start.fail_fd, start.prefix + b"cannot run " + start.path + b": " + why)
    except OSError:
        pass  # no one listens; the exit status still tells
