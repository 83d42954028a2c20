"""What bob of one domain does and tries against bob of another; the trees' own Python runs it, inside."""

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

KEY = 0x626F62
ADDRESS, PORT = "127.0.97.2", 19587
SHARED = os.path.realpath("/usr/bin/python3")
CREATE = 0o1000  # IPC_CREAT
PTRACE_ATTACH, SETVAL, GETVAL, IPC_STAT, NO_WAIT = 16, 16, 12, 2, 0o4000
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


def call(name: str, *words: Any) -> int:  # noqa: ANN401  what C takes
    """A call of C's library that says -1 and errno."""
    found: int = getattr(libc, name)(*words)
    if found == -1:
        raise OSError(ctypes.get_errno(), name)
    return found


class Ipc:
    """Shared memory, a queue of messages, a semaphore and a POSIX queue that everybody may use."""

    def __init__(self) -> None:
        self.shm = call("shmget", KEY, 4096, CREATE | 0o666)
        self.memory = libc.shmat(self.shm, None, 0)
        self.messages = call("msgget", KEY, CREATE | 0o666)
        self.semaphore = call("semget", KEY, 1, CREATE | 0o666)
        umask = os.umask(0)
        self.queue = call("mq_open", b"/bob", os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o666, None)
        os.umask(umask)

    def write(self, text: bytes) -> None:
        ctypes.memmove(self.memory, text, len(text))
        call("msgsnd", self.messages, ctypes.c_char_p(b"\1" + bytes(7) + text), len(text), NO_WAIT)
        call("semctl", self.semaphore, 0, SETVAL, len(text))
        call("mq_send", self.queue, text, len(text), 0)

    def read(self) -> list[str]:
        into = ctypes.create_string_buffer(8192)
        found = [ctypes.string_at(self.memory).decode()]
        for name, *words in (
            ("msgrcv", self.messages, into, 4096, 0, NO_WAIT),
            ("mq_receive", self.queue, into, 8192, None),
        ):
            try:
                while True:
                    found.append(f"{name} {call(str(name), *words)}")
            except OSError as error:
                found.append(errno.errorcode[error.errno or 0])
        return [*found, str(call("semctl", self.semaphore, 0, GETVAL))]


def sit() -> None:
    """Hold one of everything, and answer on a socket at home, until the end."""
    is_victim = socket.gethostname() == "domain2.com"
    ipc = Ipc()
    held = []
    child = os.fork()
    if child == 0:
        signal.pause()
    if is_victim:
        ipc.write(b"theirs")
        ipc.read()
        with open("/dev/shm/bob", "w") as file:
            file.write("theirs")
        for path in ("/home/bob/lock", SHARED):
            held.append(os.open(path, os.O_RDONLY | (0 if path == SHARED else os.O_CREAT), 0o666))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind("\0bob")
        abstract.listen()
        loopback = socket.create_server((ADDRESS, PORT))
        held += [abstract.fileno(), loopback.fileno()]
    here = socket.socket(socket.AF_UNIX)
    here.bind("/home/bob/do")
    here.listen()
    while True:
        connection, _ = here.accept()
        with connection, connection.makefile("rw") as stream:
            told = json.loads(stream.readline())
            done = report(ipc, child) if told is None else act(told)
            stream.write(json.dumps(done) + "\n")


def report(ipc: Ipc, child: int) -> dict[str, Any]:
    """What bob sees of himself and of others."""
    return {
        "ipc": ipc.read(),
        "files": sorted(os.listdir("/dev/shm")),
        "nice": [os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, child)],
        "child": os.waitpid(child, os.WNOHANG)[0],
        "processes": [pid for pid in range(1, 400) if exists(pid)],
        "proc": os.path.exists("/proc/self"),
    }


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


def act(told: dict[str, Any]) -> dict[str, str]:
    """Everything that is one's own to do, unless told not to, and everything that should fail; how each came out."""
    pids, secret = told["pids"], told["secret"]
    found: dict[str, str] = {}
    if told["own"]:
        found = {name: outcome(attempt) for name, attempt in own().items()}
    found |= {name: outcome(attempt) for name, attempt in through_the_network().items()}
    for name, attempt in (*towards_processes(), *towards_files(secret)):
        tried = {outcome(lambda pid=pid, attempt=attempt: attempt(pid)) for pid in pids}  # type: ignore[misc]
        found[name] = " ".join(sorted(tried))
    if told["own"]:
        found["kill all"] = outcome(lambda: os.kill(-1, signal.SIGKILL))
    return found


def look() -> list[str]:
    """The host's name, and whether there is what bob of another domain may have made."""
    attempts = (
        lambda: call("shmget", KEY, 0, 0),
        lambda: call("msgget", KEY, 0),
        lambda: call("semget", KEY, 0, 0),
        lambda: call("mq_open", b"/bob", os.O_RDONLY),
    )
    return [socket.gethostname(), *map(outcome, attempts)]


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def own() -> dict[str, Callable[[], object]]:
    def ipc() -> None:
        Ipc().write(b"mischief")

    def log() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("/dev/log")
            sender.send(b"<14>mischief: of bob")

    def run() -> None:
        if os.fork() == 0:
            signal.pause()

    return {
        "file": lambda: write("/home/bob/mischief"),
        "temporary": lambda: write("/tmp/mischief"),
        "spool": lambda: write("/var/mail/bob"),
        "memory": lambda: write("/dev/shm/bob"),
        "lock": lambda: lock("/home/bob/mischief"),
        "log": log,
        "ipc": ipc,
        "process": run,
        "nice": lambda: os.setpriority(os.PRIO_USER, os.getuid(), 11),
    }


def write(path: str) -> None:
    with open(path, "a") as file:
        file.write("From bob: mischief\n")


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def lock(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def through_the_network() -> dict[str, Callable[[], object]]:
    """Names that all who share a network, or an inode, see."""

    def abstract() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0bob")

    def loopback() -> None:
        socket.create_connection((ADDRESS, PORT)).close()

    return {"abstract": abstract, "loopback": loopback, "shared lock": lambda: lock(SHARED)}


def towards_processes() -> Iterable[tuple[str, Callable[[int], object]]]:
    yield "kill", lambda pid: os.kill(pid, signal.SIGKILL)
    yield "renice", lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19)
    yield "ptrace", lambda pid: call("ptrace", PTRACE_ATTACH, pid, None, None)
    yield "environ", lambda pid: read(f"/proc/{pid}/environ")
    yield "root", lambda pid: os.listdir(f"/proc/{pid}/root/home/bob")
    yield "affinity", lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(0))


def towards_files(secret: str) -> Iterable[tuple[str, Callable[[int], object]]]:
    yield "by its path", lambda _: read(secret)
    yield "upwards", lambda _: read("../" * 20 + secret.lstrip("/"))
    yield "shared written", lambda _: os.open(SHARED, os.O_WRONLY)
    yield "shared linked", lambda _: os.link(SHARED, "/home/bob/mine")
    yield "shared touched", lambda _: os.utime(SHARED, (0, 0))


if __name__ == "__main__":
    if sys.argv[1:] == ["sit"]:
        sit()
    else:
        words = sys.argv[1] if sys.argv[1:] else sys.stdin.readline()
        told_ = json.loads(words)
        sys.stdout.write(json.dumps(look() if told_ is None else act(told_)))
