"""Reader: what checks need to know of the machine."""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator

from virttools import linux
from virttools.doctor.facts import HostsLine, Inetd, InetdLine, Lack
from virttools.host.sysroot import Sysroot
from virttools.serve import inetdconf
from virttools.serve.inetdconf import Entry
from virttools.tree import processes, users
from virttools.tree.processes import lock_holders

INETD = "/etc/inetd.conf"
_BOOT = "boot Linux 5.12 or later; in a container, have its runtime permit {}"
_PERMIT = "this container lacks CAP_SYS_ADMIN, or its seccomp filter forbids {}: have its runtime permit it"
_SYSCTLS = (
    ("user/max_user_namespaces", "0", "15000"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)
_FLAGS = (
    ("nosuid", os.ST_NOSUID),
    ("nodev", os.ST_NODEV),
    ("noexec", os.ST_NOEXEC),
)


def lacks(proc: str = "/proc") -> Iterator[Lack]:
    """What the kernel, or who keeps us in a container, does not give."""
    for name, cause, attempt in _NEEDED:
        refusal = _refusal(attempt)
        if refusal == errno.ENOSYS:
            yield Lack(f"the kernel has no {name}", cause, _BOOT.format(name), is_needed=True)
        elif refusal == errno.EPERM and os.geteuid() == 0:  # a user has it in a namespace of theirs
            yield Lack(f"root is not permitted {name}", cause, _PERMIT.format(name), is_needed=True)
    if not os.path.exists(f"{proc}/self"):
        cause = "nothing can be contained, and nobody can tell who uses a tree"
        yield Lack(f"{proc} is not mounted", cause, f"mount -t proc proc {proc}", is_needed=True)
        return
    for kind in ("mnt", "pid", "ipc", "uts"):
        if not os.path.exists(f"{proc}/self/ns/{kind}"):
            cause = "nothing can be contained without it"
            yield Lack(
                f"the kernel has no {kind} namespaces",
                cause,
                _BOOT.format("namespaces"),
                is_needed=True,
            )
    for name, off, on in _SYSCTLS:
        if _text(f"{proc}/sys/{name}") == off:
            setting = name.replace("/", ".")
            yield Lack(
                f"{setting} is {off}",
                "ordinary users get no user namespace, and so no trees of their own; root needs none",
                f"sysctl -w {setting}={on}",
                is_needed=False,
            )


def _refusal(attempt: Callable[[], object]) -> int:
    """The error of a call that must fail: it says whether the kernel knows it, and permits it."""
    try:
        attempt()
    except OSError as error:
        return error.errno or 0
    return 0


def _openat2() -> None:
    os.close(linux.openat2(-100, "/", os.O_PATH, linux.RESOLVE_NO_SYMLINKS))  # AT_FDCWD


_NEEDED: tuple[tuple[str, str, Callable[[], object]], ...] = (
    ("openat2(2)", "nothing below a tree can be opened safely without it", _openat2),
    (
        "mount_setattr(2)",
        "contained, shared folders could not be made read-only",
        lambda: linux.set_mount(-1),
    ),
    (
        "open_tree(2)",
        "a tree could not be made the root of what runs inside",
        lambda: linux.clone_mount(-1),
    ),
)


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def mount(root_fd: int, path: str) -> tuple[str, tuple[str, ...]]:
    """Where the file system of the root is mounted, and with which options that harm."""
    flags = os.fstatvfs(root_fd).f_flag
    above = [point for point in users.mount_points() if users.is_within(path, point)]
    return max(above, key=len, default="/"), tuple(name for name, bit in _FLAGS if flags & bit)


def leftovers(staging_fd: int) -> tuple[str, ...]:
    """What lies in staging and belongs to nobody who is at work."""
    names = sorted(os.listdir(staging_fd))
    folders = [name for name in names if not name.startswith(".lock.")]
    return tuple(
        name for name in folders if not lock_holders(staging_fd, f".lock.{name.rpartition('.')[2]}")
    )


def inetd(path: str, sysroot: Sysroot) -> Inetd | None:
    """What that inetd.conf says; None where there is none."""
    text = sysroot.read(path)
    if text is None:
        return None
    ports = inetdconf.read_services((sysroot.read(inetdconf.SERVICES) or b"").decode("latin-1"))
    entries, problems = inetdconf.parse(text.decode("utf-8", "surrogateescape"), path, ports)
    return Inetd(path, tuple(_lines_of_virtuald(entries)), problems)


def _lines_of_virtuald(entries: Iterable[Entry]) -> Iterator[InetdLine]:
    for entry in entries:
        if entry.virtuald is not None:
            is_stream = entry.kind is inetdconf.Kind.STREAM
            yield InetdLine(
                line=entry.line,
                label=entry.label,
                conf=entry.virtuald.conf,
                argv=entry.virtuald.argv,
                is_wait=entry.is_wait,
                is_limited=entry.max != inetdconf.DEFAULT_MAX,
                is_listener=entry.is_wait and is_stream and entry.hosts == ("*",),
            )


def absent(addresses: Iterable[str]) -> frozenset[str]:
    """Those that no interface of ours has: the kernel does not bind a socket to them."""
    return frozenset(address for address in set(addresses) if not _is_local(address))


def _is_local(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def hosts(sysroot: Sysroot) -> Iterator[HostsLine]:
    """What the machine looks up before DNS, by line."""
    text = (sysroot.read("/etc/hosts") or b"").decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].split()
        if len(words) > 1:
            yield HostsLine(number, words[0], tuple(word.lower() for word in words[1:]))


def interface() -> str:
    """The one that the default route goes by, or lo."""
    for line in _lines("/proc/net/route")[1:]:
        words = line.split()
        if words[1:2] == ["00000000"]:
            return words[0]
    return "lo"


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 16).splitlines()
    except OSError:
        return []


def running() -> dict[int, frozenset[int]]:
    """The uids of each process that is here."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid: found for pid in pids if (found := processes.uids(pid))}
