"""Values: what entering a tree needs, made ready beforehand and encoded (DESIGN 7.4)."""

import os

from virttools.enter.accounts import Account


class Entrance:
    """Paths are as seen inside; account None leaves the ids as they are.

    What fails after chroot is written to fail_fd, after prefix. kept_fds go to the program beside
    0, 1 and 2; no_new_privileges: set-id bits count for nothing from then on. is_rootless: we are
    an ordinary user in a user namespace; may_set_groups: the kernel lets us there.
    """

    __slots__ = (
        "account", "argv", "cwd", "env", "fail_fd", "is_rootless", "kept_fds", "may_set_groups",
        "no_new_privileges", "path", "prefix", "tree_fd",
    )  # fmt: skip

    def __init__(
        self,
        tree_fd: int,
        path: str,
        argv: list[str],
        *,
        env: dict[bytes, bytes],
        account: Account | None = None,
        cwd: str = "/",
    ) -> None:
        self.tree_fd = tree_fd
        self.path = os.fsencode(path)
        self.argv = [os.fsencode(word) for word in argv]
        self.env = env
        self.account = account
        self.cwd = os.fsencode(cwd)
        self.fail_fd = 2
        self.prefix = b"virt: "
        self.kept_fds: list[int] = []
        self.no_new_privileges = False
        self.is_rootless = False
        self.may_set_groups = True


class Cell:
    """The namespaces around a contained program, and what is put into them.

    tree_mount_fd, binds (mount, place inside) and pts_fd: mounts that are attached nowhere yet.
    tty_fd: the inner side of the terminal, which takes the places std_fds, or -1. is_waiting: the
    program does not have the terminal until it asks. report_fd: where init writes what happens.
    may_lack_proc: go on without a /proc where the kernel gives none.
    """

    __slots__ = (
        "binds", "has_proc", "hostname", "is_waiting", "is_writable", "may_lack_proc", "pts_fd", "report_fd",
        "std_fds", "tree_mount_fd", "tty_fd",
    )  # fmt: skip

    def __init__(self, tree_mount_fd: int, hostname: str) -> None:
        self.tree_mount_fd = tree_mount_fd
        # HOST_NAME_MAX is 64; the first label is at most 63.
        self.hostname = os.fsencode(hostname if len(hostname) <= 64 else hostname.partition(".")[0])
        self.binds: list[tuple[int, bytes]] = []
        self.has_proc = True
        self.may_lack_proc = False
        self.is_writable = False
        self.is_waiting = False
        self.pts_fd = -1
        self.tty_fd = -1
        self.std_fds: list[int] = []
        self.report_fd = -1


def cause(number: int) -> bytes:
    """Why execve(2) failed, by its errno, of a program that was found before."""
    if number == 2:
        return b"its loader (see `readelf -l`) is not in the tree"
    if number == 8:
        return b"it is neither for this machine nor a script that begins with #!"
    if number == 40:
        return b"it became a link just now"
    return os.strerror(number).encode()
