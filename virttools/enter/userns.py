"""Doer: makes an ordinary user root of a user namespace, by user_namespaces(7); root stays as it is.

The command goes on in there, in the same process; newuidmap(1) and newgidmap(1) serve where
/etc/subuid and /etc/subgid give ranges, else there is one user only. Light enough for the fast ways.
"""

import os

from virttools import linux
from virttools.errors import ApplyError, HostLacks

# typing costs start-up time; a name in quotes is enough for the type checker
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

_RANGES = ("/etc/subuid", "/etc/subgid")
_HELPERS = ("newuidmap", "newgidmap")
_MAPS = ("/proc/self/uid_map", "/proc/self/gid_map")
_PATH = "/usr/bin:/usr/sbin:/bin:/sbin:/run/wrappers/bin"
_AS_ROOT = "or run virt as root"
_SWITCHES = (
    (
        "kernel/unprivileged_userns_clone",
        b"0",
        "kernel.unprivileged_userns_clone is 0 here",
        "root may allow them: sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "user/max_user_namespaces",
        b"0",
        "user.max_user_namespaces is 0 here",
        "root may allow them: sysctl user.max_user_namespaces=10000",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        b"1",
        "AppArmor keeps them for some programs (apparmor_restrict_unprivileged_userns is 1)",
        "root may allow them: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
_CAUSES = {
    1: "a seccomp filter or security module forbids it (a container?), or this is a chroot",
    13: "a security module forbids it",
    22: "this kernel has none",
    28: "there are as many as user.max_user_namespaces and its kin allow",
    38: "this kernel has none",
    87: "they are nested too deep",
}


class Mapping:
    """Which ids there are inside. uids, gids: how many; fault: why a range was given and is not used, or ""."""

    __slots__ = ("fault", "gids", "uids")

    def __init__(self, uids: int, gids: int, fault: str) -> None:
        self.uids = uids
        self.gids = gids
        self.fault = fault

    @property
    def is_single(self) -> bool:
        return self.uids == 1 or self.gids == 1

    def told(self) -> str:
        """What a user is told of it: what is chosen, and what is missing."""
        if not self.is_single:
            return (
                f"not root: works in a user namespace, with {min(self.uids, self.gids)} ids of "
                "/etc/subuid and /etc/subgid; what is missing: device nodes"
            )
        why = f" ({self.fault})" if self.fault else ""
        return (
            f"not root: works in a user namespace with one id{why}; "
            "what is missing: device nodes, and files of other owners than you"
        )

    def document(self) -> "dict[str, object]":
        missing = ["device nodes", *(["foreign ids"] if self.is_single else [])]
        return {"mapping": "single" if self.is_single else "subuid", "missing": missing}


_found: "Mapping | None" = None


def found() -> "Mapping | None":
    """What `require` or `enter` came to; None where nobody needed it."""
    return _found


def require() -> "Mapping | None":
    """Make sure that there is a namespace for an ordinary user, before anything is begun.

    Tried in a child, since from inside all foreign owners look alike. Raises HostLacks.
    """
    global _found  # noqa: PLW0603  a process tries it once
    if os.geteuid() != 0 and _found is None:
        _found = run(_entered)
    return _found


def _entered() -> "Mapping | None":
    return _found


def run(work: "Callable[[], T]") -> "T":
    """Do work in a child in a namespace of its own; for root, and in there, just do it. Raises HostLacks."""
    return apart(lambda: _inside(work))


def _inside(work: "Callable[[], T]") -> "T":
    enter()
    return work()


def apart(work: "Callable[[], T]") -> "T":
    """Do work in a child, since who enters a namespace does not come back; root just does it.

    What it returns, or raises, is ours.
    """
    if os.geteuid() == 0:
        return work()
    import pickle

    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome: tuple[bool, object]
        try:
            outcome = (True, work())
        except BaseException as error:  # noqa: BLE001  raised again outside
            outcome = (False, error)
        try:
            with open(write_fd, "wb") as file:
                pickle.dump(outcome, file)
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    if not told:
        raise ApplyError(f"cannot work in a user namespace: the process ended with {status}")
    is_done, result = pickle.loads(told)  # noqa: S301
    if not is_done:
        raise result
    return result  # type: ignore[no-any-return]  # as work has it


def enter(*, mounts: bool = False) -> None:
    """Be root of a new user namespace, with every id that is given to us. Only while single-threaded.

    mounts: with a mount namespace. Nothing happens for who is root already. Raises HostLacks.
    """
    global _found  # noqa: PLW0603  a process enters once
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return
    argvs, fault = _mappers(uid, gid)
    helper = _Helper(argvs) if argvs else None
    try:
        linux.unshare(linux.CLONE_NEWUSER | (linux.CLONE_NEWNS if mounts else 0))
        if helper is not None:
            fault = helper.go()
            helper = None
        _map_rest(uid, gid)
        _refuse_confined()
    except OSError as error:
        raise refusal(error.errno or 0) from error
    finally:
        if helper is not None:
            helper.cancel()
    _found = Mapping(_count(_MAPS[0]), _count(_MAPS[1]), fault)


def _mappers(uid: int, gid: int) -> "tuple[list[list[str]], str]":
    """The calls that map the ranges we are given, or why there are none."""
    ranges = [_given(path, uid) for path in _RANGES]
    if not any(ranges):
        return [], ""
    if not all(ranges):
        return [], f"{_RANGES[0 if ranges[1] else 1]} has no range for you"
    argvs = []
    for name, own, rows in zip(_HELPERS, (uid, gid), ranges, strict=True):
        program = _program(name)
        if program is None:
            return [], f"{name} is not installed: package uidmap"
        words = ["0", str(own), "1"]
        first = 1
        for start, count in rows:
            words += [str(first), str(start), str(count)]
            first += count
        argvs.append([program, str(os.getpid()), *words])
    return argvs, ""


def _given(path: str, uid: int) -> "list[tuple[int, int]]":
    """The ranges of subuid(5) text that are this user's: first id, and how many."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.strip().split(":") for line in file]
    except OSError:
        return []
    names = {str(uid), _name(uid)}
    return [
        (int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3
        and row[0] in names
        and row[1].isdigit()
        and row[2].isdigit()
        and int(row[2])
    ]


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _program(name: str) -> "str | None":
    for folder in _PATH.split(":"):
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    return None


class _Helper:
    """A child that stays outside, waits, and has the kernel told what our ids are."""

    __slots__ = ("_go_fd", "_pid", "_told_fd")

    def __init__(self, argvs: "list[list[str]]") -> None:
        wait_fd, self._go_fd = os.pipe()
        self._told_fd, tell_fd = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._go_fd)  # else our own end would keep us from seeing it closed
                if os.read(wait_fd, 1):
                    os.dup2(tell_fd, 2)
                    for argv in argvs:
                        os.spawnve(os.P_WAIT, argv[0], argv, {"LC_ALL": "C"})
            finally:
                os._exit(0)
        os.close(wait_fd)
        os.close(tell_fd)

    def go(self) -> str:
        """Have it done; what the programs complained of. Whether it is done, the maps tell."""
        os.write(self._go_fd, b"g")
        with open(self._told_fd, "rb", closefd=False) as file:
            told = file.read().decode(errors="replace").strip()
        self.cancel()
        return told.splitlines()[0] if told else ""

    def cancel(self) -> None:
        os.close(self._go_fd)
        os.close(self._told_fd)
        os.waitpid(self._pid, 0)


def _map_rest(uid: int, gid: int) -> None:
    """One id each where no range was mapped; the kernel wants setgroups(2) denied for that."""
    if not _count(_MAPS[1]):
        _write("/proc/self/setgroups", b"deny")
        _write(_MAPS[1], b"0 %d 1" % gid)
    if not _count(_MAPS[0]):
        _write(_MAPS[0], b"0 %d 1" % uid)


def _count(path: str) -> int:
    """How many ids a map has."""
    with open(path, "rb", buffering=0) as file:
        return sum(int(line.split()[2]) for line in file.read().splitlines())


def _write(path: str, text: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text)


def _refuse_confined() -> None:
    """Where AppArmor lets one make a namespace and then do nothing in it, say so now."""
    try:
        with open("/proc/self/attr/current", "rb", buffering=0) as file:
            profile = file.read()
    except OSError:
        return
    if profile.startswith(b"unprivileged_userns"):
        raise PermissionError(13, os.strerror(13))


def refusal(number: int, sysctls: str = "/proc/sys") -> HostLacks:
    """Why there is no namespace, in words: what is switched off here, else what the errno tells."""
    for switch, off, cause, hint in _SWITCHES:
        try:
            with open(f"{sysctls}/{switch}", "rb", buffering=0) as file:
                is_off = file.read().strip() == off
        except OSError:
            continue
        if is_off:
            return _refusal(cause, f"{hint}; {_AS_ROOT}")
    cause = _CAUSES.get(number, os.strerror(number).lower())
    return _refusal(cause, f"allow user namespaces to ordinary users here, {_AS_ROOT}")


def _refusal(cause: str, hint: str) -> HostLacks:
    return HostLacks(f"cannot work without root: no user namespace to be had: {cause}", hint=hint)
