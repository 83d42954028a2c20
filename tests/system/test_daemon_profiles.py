"""The profiles of daemons, two domains on one machine under `virt serve`: real programs, real clients."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.calls import VIRT, Virt
from tests.system.server import Server, serving, until

pytestmark = pytest.mark.usefixtures("as_root")

ADDRESSES = {"d1.example": "192.0.2.1", "d2.example": "192.0.2.2"}


@dataclass(frozen=True, slots=True)
class Machine:
    """A network of its own, with both domains served in it."""

    virt: Virt
    server: Server
    inside: tuple[str, ...]
    """What runs a program in that network."""

    def run(self, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, *words],
            input=said,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def pid(self, daemon: str, domain: str) -> int:
        found = {(one["daemon"], one["domain"]): one for one in self.server.status()["daemons"]}
        pid: int = found[daemon, domain]["pid"]
        return pid


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("daemons")
    folder.chmod(0o755)
    root = folder / "virtual"
    root.mkdir(mode=0o755)
    virt = Virt(root)
    network = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    inside = ("nsenter", f"--net=/proc/{network.pid}/ns/net")
    until(lambda: is_apart(network.pid), "a network of its own")
    subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
    for name, address in ADDRESSES.items():
        subprocess.run([*inside, "ip", "address", "add", f"{address}/24", "dev", "lo"], check=True)
        manifest = folder / f"{name}.toml"
        manifest.write_text(
            f'profiles = ["www-nginx", "samba"]\naddresses = ["{address}"]\n'
            'users = [{ name = "bob", uid = 1234 }]\n'
        )
        virt.good("create", "--yes", name, "-m", str(manifest))
        page = virt.tree(name) / "var/www/html/page.html"
        page.write_text(f"<p>{name}</p>" * 500)
    with serving(root, folder, wrapper=list(inside)) as server:
        yield Machine(virt, server, inside)
    network.communicate()
    virt.good("remove", "--yes", *ADDRESSES)


def is_apart(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def fetch(machine: Machine, address: str, *words: str) -> str:
    return machine.run("curl", "-s", *words, f"http://{address}/page.html").stdout


def answers(machine: Machine, name: str) -> None:
    address = ADDRESSES[name]
    until(lambda: f"<p>{name}</p>" in fetch(machine, address), f"{name} by {address}")


def test_each_nginx_answers_from_its_own_tree(machine: Machine) -> None:
    """As browsers ask: connections that last, ranges, compression."""
    for name, address in ADDRESSES.items():
        answers(machine, name)
        url = f"http://{address}/page.html"
        twice = ("-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n")
        done = machine.run("curl", "-s", *twice, url, url)
        assert done.stdout == "200 1\n200 0\n"
        assert fetch(machine, address, "-r", "3-12", "-w", " %{http_code}") == f"{name} 206"
        packed = fetch(
            machine, address, "-H", "Accept-Encoding: gzip", "-D", "-", "-o", "/dev/null"
        )
        assert "Content-Encoding: gzip" in packed


def test_one_nginx_that_is_killed_comes_back(machine: Machine) -> None:
    """At once, with its port; the other domain's is not touched."""
    for name in ADDRESSES:
        answers(machine, name)
    before = {name: machine.pid("nginx", name) for name in ADDRESSES}
    os.kill(before["d1.example"], signal.SIGKILL)
    until(
        lambda: machine.pid("nginx", "d1.example") not in (0, before["d1.example"]), "started anew"
    )
    answers(machine, "d1.example")
    assert machine.pid("nginx", "d2.example") == before["d2.example"]


def test_samba_keeps_files_passwords_and_sessions_apart(machine: Machine, tmp_path: Path) -> None:
    """Bob has a password in one domain, puts a file there and fetches it; the other knows neither."""
    virt, mine, theirs = machine.virt, *ADDRESSES
    subprocess.run(
        [VIRT, "exec", "--domain", mine, "--", "smbpasswd", "-s", "-a", "bob"],
        env=virt.environment(),
        input="secret\nsecret\n",
        text=True,
        check=True,
        capture_output=True,
    )
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(os.urandom(100_000))
    words = f"put {sent} upload; get upload {got}"
    until(lambda: smb(machine, mine, "share", words).returncode == 0, "samba answers")
    assert got.read_bytes() == sent.read_bytes()
    assert (virt.tree(mine) / "srv/share/upload").stat().st_uid == 1234
    assert not (virt.tree(theirs) / "srv/share/upload").exists()
    assert smb(machine, mine, "bob", "mkdir docs").returncode == 0
    assert (virt.tree(mine) / "home/bob/docs").is_dir()
    refused = smb(machine, theirs, "share", "ls")
    assert "NT_STATUS_LOGON_FAILURE" in refused.stdout + refused.stderr


def smb(machine: Machine, name: str, share: str, command: str) -> subprocess.CompletedProcess[str]:
    options = ("-s", "/dev/null", "-U", "bob%secret", "-c", command)
    return machine.run("smbclient", f"//{ADDRESSES[name]}/{share}", *options)
