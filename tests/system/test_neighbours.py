"""Nothing that one domain's bob does in it is seen in the other's tree, spool, log or process list."""

import hashlib
import json
import os
import re
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system import mischief, processes, test_log_serve
from tests.system.calls import Virt
from tests.system.server import Server, ask, connect, read, serving
from tests.system.serving import free_ports
from tests.system.waiting import until

pytestmark = pytest.mark.usefixtures("as_root")
PORT = free_ports(("act",))["act"]
ONE, TWO = "domain1.com", "domain2.com"
MANIFEST = f"""
profiles = []
uid_base = "auto"
binaries = ["python3"]
files = [
  {{ from = "{mischief.__file__}", to = "/srv/mischief.py", mode = 0o755 }},
  {{ from = "SPOOL", to = "/var/mail/bob", mode = 0o600, owner = "bob", group = "bob" }},
]
directories = [
  "/proc",
  {{ path = "/tmp", mode = 0o1777 }}, {{ path = "/dev/shm", mode = 0o1777 }}, {{ path = "/var/mail", mode = 0o1777 }},
]
users = [{{ name = "bob", uid = 1000 }}]
etc = {{ skeleton = ["passwd", "group"] }}
[[services]]
name = "act"
port = {PORT}
program = "/usr/bin/python3"
args = ["/srv/mischief.py"]
user = "bob"
[[daemons]]
name = "sit"
program = "/usr/bin/python3"
args = ["/srv/mischief.py", "sit"]
user = "bob"
"""


@dataclass(frozen=True, slots=True)
class Street:
    """Two domains next to each other, whose servers run."""

    virt: Virt
    server: Server
    logs: test_log_serve.Server

    def ask(self, domain: str, told: object) -> Any:  # noqa: ANN401  JSON
        """Have bob's daemon act, or, told nothing, report."""
        with socket.socket(socket.AF_UNIX) as client:
            fd = os.open(self.virt.tree(domain) / "home/bob", os.O_PATH)
            client.connect(f"/proc/self/fd/{fd}/do")
            os.close(fd)
            client.sendall(json.dumps(told).encode() + b"\n")
            with client.makefile() as stream:
                return json.loads(stream.readline())

    def sitters(self, domain: str) -> list[int]:
        """Bob's processes in a domain, as the machine numbers them."""
        (one,) = [it for it in self.server.status()["daemons"] if it["domain"] == domain]
        return [one["pid"], *processes.children(one["pid"])]

    def seen(self, domain: str) -> dict[str, Any]:
        """All that a domain can see of itself, looked at from outside and from inside."""
        pids = self.sitters(domain)
        return {
            "tree": contents(self.virt.tree(domain)),
            "log": sorted((line.tag, line.text) for line in self.logs.own(domain)),
            "processes": running(pids[0]),
            "ipc": in_ipc(pids[0]),
            "exec": self.virt.good("exec", "--domain", domain, "--user", "bob", "--", *LOOK),
            "report": self.ask(domain, None),
            "service": at_service(2, None),
        }


LOOK = (
    "python3",
    "-c",
    """
import os
print(sorted(filter(str.isdigit, os.listdir("/proc"))), os.listdir("/dev/shm"))
print([open(f"/proc/sysvipc/{kind}").read() for kind in ("shm", "msg", "sem")])
""",
)


def contents(tree: Path) -> dict[str, tuple[object, ...]]:
    """Every byte, owner, mode and time of a tree."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (tree, *sorted(tree.rglob("*"))):
        status = path.lstat()
        kind = status.st_mode
        text = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(kind) else ""
        text = os.readlink(path) if stat.S_ISLNK(kind) else text
        found[str(path)] = (
            kind,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_ino,
            text,
        )
    return found


def running(of: int) -> list[tuple[str, ...]]:
    """What runs in the pid namespace of a process: number, state, niceness and words of each."""
    space = os.readlink(f"/proc/{of}/ns/pid")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "ns/pid") != space:
                continue
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_text()
        except OSError:
            continue
        found.append((folder.name, fields[16], words))
    return sorted(found)


def in_ipc(of: int) -> str:
    """The System V objects and POSIX queues in the ipc namespace of a process; times left out."""
    script = "mount -t mqueue none /mnt && ls -l --time-style=+ /mnt && cut -c 1-60 /proc/sysvipc/*"
    words = ["nsenter", "-t", str(of), "--ipc", "unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    folder.chmod(0o755)
    virt = Virt(folder / "virtual")
    virt.root.mkdir(mode=0o755)
    (folder / "spool").write_text("From alice: hello\n")
    manifest = folder / "street.toml"
    manifest.write_text(MANIFEST.replace("SPOOL", str(folder / "spool")))
    for number, name in enumerate((ONE, TWO), 1):
        virt.create(name, "-m", str(manifest), "--ip", f"127.0.97.{number}")
    secret = virt.tree(TWO) / "home/bob/secret"
    secret.write_text("theirs")
    secret.chmod(0o600)
    os.chown(secret, *bob(virt, TWO))
    with (
        test_log_serve.serving(virt, folder) as logs,
        serving(virt.root, folder, "--spawners", "1") as server,
    ):
        here = Street(virt, server, logs)
        for name in (ONE, TWO):
            until(
                (virt.tree(name) / "home/bob/do").exists,
                f"bob of {name} sits\n{server.log.read_text()}",
            )
        yield here
    virt.sweep()


def bob(virt: Virt, domain: str) -> tuple[int, int]:
    line = re.search(
        r"^bob:x:(\d+):(\d+):", (virt.tree(domain) / "etc/passwd").read_text(), re.MULTILINE
    )
    assert line is not None
    return int(line[1]), int(line[2])


def by_exec(street: Street, told: dict[str, Any]) -> dict[str, str]:
    words = ("--", "python3", "/srv/mischief.py", json.dumps(told))
    found: dict[str, str] = json.loads(
        street.virt.good("exec", "--domain", ONE, "--user", "bob", *words)
    )
    return found


def by_service(street: Street, told: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = at_service(1, told)
    return found


def at_service(number: int, told: object) -> Any:  # noqa: ANN401  JSON
    return json.loads(ask(f"127.0.97.{number}", PORT, json.dumps(told).encode() + b"\n"))


def by_daemon(street: Street, told: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = street.ask(ONE, told)
    return found


OWN = {"file", "temporary", "spool", "memory", "lock", "log", "ipc", "process", "nice", "kill all"}
KNOWN = {"abstract": "done", "loopback": "done", "shared lock": "EAGAIN"}
"""What docs/safety.md says of a shared network and of shared files."""


@pytest.mark.parametrize("way", [by_exec, by_service, by_daemon])
def test_what_bob_does_next_door_is_not_seen(
    street: Street, way: Callable[[Street, dict[str, Any]], dict[str, str]]
) -> None:
    """He writes, mails, logs, runs, and tries all he can against his namesake: there nothing changes."""
    before = street.seen(TWO)
    logged = len(street.logs.own(ONE))
    secret = str(street.virt.tree(TWO) / "home/bob/secret")
    told = {"pids": street.sitters(TWO), "secret": secret, "own": True}
    with connect(
        "127.0.97.2", PORT
    ) as client:  # bob of the other is being served, by the same spawner
        until(lambda: street.server.service("act", TWO)["live"] == 1, "served")
        found = way(street, told)
        client.sendall(b"null\n")
        assert read(client).startswith(f'["{TWO}"')
    street.logs.await_lines(f"domains/{ONE}.log", logged + 1)
    assert street.seen(TWO) == before
    assert {name for name, how in found.items() if how == "done"} == OWN | {"abstract", "loopback"}
    assert {name: found[name] for name in KNOWN} == KNOWN
    assert (street.virt.tree(ONE) / "var/mail/bob").read_text().endswith("mischief\n")


def test_bob_here_is_not_bob_there_to_the_kernel(street: Street) -> None:
    """Not contained, he may not signal, look at or read what is his namesake's, who may."""
    first, second = bob(street.virt, ONE), bob(street.virt, TWO)
    assert (first[0] % 65536, second[0] - first[0]) == (1000, 65536)
    pids = street.sitters(TWO)
    secret = str(street.virt.tree(TWO) / "home/bob/secret")
    told = {"pids": pids, "secret": secret, "own": False}
    words = ("--", "python3", "/srv/mischief.py", json.dumps(told))
    done = street.virt("exec", "--chroot", "--domain", ONE, "--user", "bob", *words)
    found = json.loads(done.out)
    assert {found[name] for name in ("kill", "renice", "ptrace", "affinity")} == {"EPERM"}
    assert street.sitters(TWO) == pids
    assert outside(first, pids[0], street.virt.tree(TWO)) == ["EPERM", "EACCES", "EACCES"]
    assert outside(second, pids[0], street.virt.tree(TWO)) == ["done", "done", "done"]


def outside(ids: tuple[int, int], pid: int, tree: Path) -> list[str]:
    """As this user of the machine: signal a process, look at its memory's names, and open a file by path."""
    read_fd, write_fd = os.pipe()
    tree_fd = os.open(tree, os.O_PATH)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(ids[1], ids[1], ids[1])
            os.setresuid(ids[0], ids[0], ids[0])
            attempts = (
                lambda: os.kill(pid, 0),
                lambda: os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY)),
                lambda: os.close(os.open("home/bob/secret", os.O_RDONLY, dir_fd=tree_fd)),
            )
            os.write(write_fd, json.dumps([mischief.outcome(one) for one in attempts]).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    os.close(tree_fd)
    os.waitpid(child, 0)
    with open(read_fd) as stream:
        found: list[str] = json.load(stream)
    return found
