"""A machine of its own, in namespaces, and another one on the same wire: what a guide's commands are run on."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system import processes, terminal
from tests.system.calls import Done
from tests.system.handmade import REPOSITORY
from tests.system.terminal import Terminal
from tests.system.waiting import PATIENCE, until

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "xterm",
    "LANG": "C.UTF-8",
    "NO_COLOR": "1",
}
_SERVER = """\
set -e
hostname host.example
ip link set lo up
mount -t tmpfs -o mode=755 none /mnt
for path in /*; do
    name=${path#/}
    if [ -L "$path" ]; then cp -P "$path" "/mnt/$name"
    elif [ -d "$path" ] && [ "$name" != mnt ] && [ "$name" != virtual ] && [ "$name" != etc ]; then
        mkdir "/mnt/$name"
        mount --rbind "$path" "/mnt/$name"
    fi
done
cp -a /etc /mnt/etc
rm -rf /mnt/etc/virttools
mkdir /mnt/virtual /mnt/old
mount --bind "$1" /mnt/virtual
for name in run var/log var/lib/misc usr/local/bin; do mount -t tmpfs -o mode=755 none "/mnt/$name"; done
mkdir -m 1777 /mnt/run/lock
ln -s "$2/bin/virt" "$2/bin/virtuald" "$2/tests/system/systemctl" /mnt/usr/local/bin
cd /mnt
pivot_root . old
umount -l /old
rmdir /old
touch /run/machine
exec env --ignore-signal=CHLD sleep infinity
"""
_CLIENT = """\
set -e
ip link set lo up
mount -t tmpfs none /run
mkdir /run/home
cp -a /etc /run/etc
mount --bind /run/etc /etc
rm -f /etc/resolv.conf /etc/hosts
echo "nameserver $1" > /etc/resolv.conf
echo "127.0.0.1 localhost" > /etc/hosts
touch /run/machine
exec env --ignore-signal=CHLD sleep infinity
"""
_APT = """\
APT::Get::Upgrade "false";
Debug::NoLocking "true";
Dir::State::extended_states "/run/extended_states";
Dir::Cache::pkgcache "/run/pkgcache.bin";
Dir::Cache::srcpkgcache "/run/srcpkgcache.bin";
"""
"""Of what is installed, apt-get changes nothing, and nothing is fetched: there is no network."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where things run: pid is the first process of its namespaces."""

    pid: int
    home: str

    def words(self, *words: str) -> list[str]:
        """How this machine runs a program."""
        namespaces = ["--mount", "--net", "--pid", "--uts"]
        enter = ["/usr/bin/nsenter", "--target", str(self.pid), *namespaces, "--"]
        return [*enter, "/usr/bin/env", "-C", self.home, *words]

    def run(self, *words: str, typed: str = "", timeout: float = 2 * PATIENCE) -> Done:
        """Run a program; its status and what it said."""
        done = subprocess.run(
            self.words(*words),
            env=_ENVIRONMENT,
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def good(self, *words: str, typed: str = "") -> str:
        """Run a program that must succeed; what it printed."""
        done = self.run(*words, typed=typed)
        assert done.status == 0, f"{shlex.join(words)}: {done.status}\n{done.out}{done.err}"
        return done.out

    @contextmanager
    def terminal(self, line: str) -> Iterator[Terminal]:
        """Type a line into a shell on a terminal of this machine."""
        words = self.words("/bin/sh", "-c", line)
        with terminal.running(words, _ENVIRONMENT, lines=60, columns=160) as shown:
            yield shown

    def write(self, path: str, text: str) -> None:
        """Write a file as an administrator does in an editor."""
        self.good("mkdir", "-p", os.path.dirname(path))
        self.good("tee", path, typed=text)


@contextmanager
def server(virtual: Path, address: str) -> Iterator[Machine]:
    """A machine with `virt`, an empty /virtual, which lies in virtual, and its /etc; eth0 has this address."""
    with _namespaces(_SERVER, str(virtual), str(REPOSITORY), home="/root") as machine:
        machine.write("/etc/apt/apt.conf.d/99test", _APT)
        for path in ("/etc/hosts", "/etc/resolv.conf"):
            machine.good("rm", "-f", path)
        machine.write("/etc/hosts", "127.0.0.1 localhost\n")
        machine.write("/etc/resolv.conf", f"nameserver {address}\n")
        machine.good("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire0")
        machine.good("ip", "address", "add", f"{address}/24", "dev", "eth0")
        machine.good("ip", "link", "set", "eth0", "up")
        # As every machine of a provider has one; nobody is at the other end.
        machine.good("ip", "route", "add", "default", "dev", "eth0")
        yield machine


@contextmanager
def client(of: Machine, address: str, nameserver: str) -> Iterator[Machine]:
    """Another machine, on the other end of the server's wire."""
    with _namespaces(_CLIENT, nameserver, home="/run/home") as machine:
        net = f"/proc/{machine.pid}/ns/net"
        words = ["ip", "link", "set", "wire0", "netns", str(machine.pid), "name", "eth0"]
        # of's own /proc does not know machine: only its network is entered
        subprocess.run(["nsenter", f"--net=/proc/{of.pid}/ns/net", *words], check=True)
        for rest in (
            ["address", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            subprocess.run(["nsenter", f"--net={net}", "ip", *rest], check=True)
        yield machine


@contextmanager
def _namespaces(script: str, *arguments: str, home: str) -> Iterator[Machine]:
    """A process in new namespaces that has run script, and all that it leaves running, until the end."""
    words = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--uts",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    holder = subprocess.Popen(
        [*words, "sh", "-c", script, "sh", *arguments], stdin=subprocess.DEVNULL
    )
    try:
        yield Machine(_first(holder), home)
    finally:
        holder.kill()  # --kill-child: and its namespaces with it
        holder.wait(PATIENCE)


def _first(holder: subprocess.Popen[bytes]) -> int:
    """The first process of the namespaces, when its script is done."""

    def ready() -> list[int]:
        assert holder.poll() is None, "the machine did not start"
        found = processes.children(holder.pid)
        return [pid for pid in found if os.path.exists(f"/proc/{pid}/root/run/machine")]

    until(ready, "the machine is ready")
    return processes.children(holder.pid)[0]
