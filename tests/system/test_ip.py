"""`virt ip`: the domains' addresses on an interface, in a network namespace of this test's own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.calls import VIRT, Done, Virt

pytestmark = pytest.mark.usefixtures("as_root")

KILLED = """
import os, signal, sys
from virttools.domains import addresses
from virttools.net.aliases import Interfaces
add = Interfaces.add
def first(self, alias):
    add(self, alias)
    os.kill(os.getpid(), signal.SIGKILL)
Interfaces.add = first
addresses.sync(sys.argv[1], "lo")
"""


EARLY = """
import socket
from virttools.net import arp
from virttools.net.alias import Alias
plain, who = socket.socket, bytes([192, 0, 2, 9])
class Heard(plain):
    def bind(self, to):
        with plain(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as other:
            other.sendto(arp.question(bytes([2] * 6), who, who), ("w1", 0x0806, 0, 0, bytes([255] * 6)))
        super().bind(to)
socket.socket, arp.PROBES = Heard, 1
print(arp.elsewhere("v0", bytes(6), [Alias("192.0.2.9", 32, "v0")]))
"""
"""What is said on another interface just before the socket is bound to its own."""


@dataclass(frozen=True, slots=True)
class Net:
    """A network namespace, by a process in it, and a root whose domains have addresses there."""

    pid: int
    virt: Virt

    def run(self, *words: str) -> Done:
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *words]
        done = subprocess.run(
            inside, env=self.virt.environment(), capture_output=True, text=True, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ip(self, *words: str) -> Done:
        return self.run(str(VIRT), "ip", *words)

    def good(self, *words: str) -> str:
        done = self.ip(*words)
        assert done.status == 0, done.err
        return done.out

    def held(self) -> set[str]:
        """Every address but those that lo is born with."""
        links = json.loads(self.run("ip", "-json", "address").out)
        found = {f"{it['local']}/{it['prefixlen']}" for one in links for it in one["addr_info"]}
        return {it for it in found if not it.startswith(("127.", "::1/", "fe80:"))}


@contextmanager
def namespace() -> Iterator[int]:
    """The pid of a process that holds a network namespace with lo up."""
    words = ["unshare", "--net", "sh", "-ec", "ip link set lo up; echo; exec cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        yield holder.pid


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """Two domains with an address of each family."""
    root = tmp_path / "virtual"
    root.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    virt = Virt(root)
    manifest = tmp_path / "small.toml"
    manifest.write_text("binaries = []\n")
    for n in "12":
        addresses = ("--ip", f"192.0.2.{n}", "--ip", f"fd00::{n}")
        virt.create("-m", str(manifest), f"d{n}.com", *addresses)
    with namespace() as pid:
        yield Net(pid, virt)


ALL = {"192.0.2.1/32", "192.0.2.2/32", "fd00::1/128", "fd00::2/128"}


def test_sync_adds_what_is_missing_and_takes_away_only_what_it_added(net: Net) -> None:
    """Twice is once; what somebody else added stays, even if it is a domain's that is gone."""
    net.run("ip", "address", "add", "192.0.2.2/32", "dev", "lo")
    net.run("ip", "address", "add", "198.51.100.9/24", "dev", "lo")
    assert "add 192.0.2.1/32 on lo" in net.good("sync", "--interface", "lo", "--dry-run")
    assert net.held() == {"192.0.2.2/32", "198.51.100.9/24"}
    first = net.ip("sync", "--interface", "lo")
    assert "192.0.2.2/32 on lo was there before" in first.err
    assert net.held() == ALL | {"198.51.100.9/24"}
    assert net.good("sync", "--interface", "lo") == ""
    rows = [row.split("\t") for row in net.good("list").splitlines()]
    states = {row[0]: row[3] for row in rows}
    assert states["192.0.2.2"] == "the host's own"
    assert states["192.0.2.1"] == states["fd00::2"] == "added"
    net.virt.good("remove", "--yes", "d1.com", "d2.com")
    assert "left over" in net.good("list")
    assert net.good("sync").splitlines() == [
        "remove 192.0.2.1/32 on lo", "remove fd00::1/128 on lo", "remove fd00::2/128 on lo",
    ]  # fmt: skip
    assert net.held() == {"192.0.2.2/32", "198.51.100.9/24"}


def test_another_root_keeps_its_own(net: Net, tmp_path: Path) -> None:
    """The mark is one for the machine: the list of each root says what is whose."""
    net.good("sync", "--interface", "lo")
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    there = Net(net.pid, Virt(other))
    there.virt.create("-m", str(tmp_path / "small.toml"), "d3.com")
    assert there.good("sync", "--interface", "lo") == ""
    assert net.held() == ALL


def test_a_killed_sync_is_finished_by_the_next(net: Net) -> None:
    """SIGKILL after the first address: it is known as ours, and a domain that is gone leaves nothing."""
    done = net.run(sys.executable, "-c", KILLED, str(net.virt.root))
    assert done.status == -9, done.err
    assert len(net.held()) == 1
    net.good("sync", "--interface", "lo")
    assert net.held() == ALL
    net.virt.good("remove", "--yes", "d1.com", "d2.com")
    net.good("sync")
    assert net.held() == set()


def test_add_and_del_change_the_record_and_the_interface(net: Net) -> None:
    """Every later command reads the record; manifest, record and interface agree."""
    taken = net.ip("add", "d1.com", "192.0.2.2", "--interface", "lo")
    assert taken.status == 73
    assert "cannot give 192.0.2.2 to d1.com: d2.com has it" in taken.err
    net.good("add", "d1.com", "192.0.2.3", "--interface", "lo")
    net.good("add", "d1.com", "192.0.2.3", "--interface", "lo")
    net.good("del", "d1.com", "192.0.2.1")
    assert net.held() == {"192.0.2.3/32"}
    assert net.virt.json("show", "d1.com")["addresses"] == ["fd00::1", "192.0.2.3"]
    shown = net.virt.good("manifest", "show", "d1.com")
    assert "192.0.2.3" in shown
    assert "192.0.2.1" not in shown
    gone = net.ip("del", "d1.com", "192.0.2.1")
    assert gone.status == 68
    assert "it does not have it" in gone.err
    assert "192.0.2.3" in gone.err
    for address in ("fd00::1", "192.0.2.3"):
        net.good("del", "d1.com", address)
    assert net.held() == set()
    assert net.virt.json("show", "d1.com")["addresses"] == []


def test_what_is_wrong_is_one_sentence_with_a_hint(net: Net) -> None:
    missing = net.ip("sync", "--interface", "eth9")
    assert missing.status == 78
    assert "there is no such interface\nhint: " in missing.err
    routeless = net.ip("sync")
    assert routeless.status == 78
    assert "this machine has no default route\nhint: " in routeless.err
    unfit = net.ip("add", "d1.com", "192.0.2.300", "--interface", "lo")
    assert unfit.status == 65
    net.run("ip", "link", "set", "lo", "down")
    down = net.ip("sync", "--interface", "lo")
    assert down.status == 78
    assert "the interface is down\nhint: ip link set lo up" in down.err
    net.run("ip", "link", "set", "lo", "up")
    weak = net.run("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--",
                   str(VIRT), "ip", "sync", "--interface", "lo")  # fmt: skip
    assert weak.status == 77
    assert "it needs CAP_NET_ADMIN\nhint: " in weak.err
    assert net.held() == set()


def test_a_planted_list_is_not_followed(net: Net, tmp_path: Path) -> None:
    """A link at the list's place is refused, and a damaged list says what to do."""
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    claims = net.virt.root / ".virt" / "addresses.json"
    claims.symlink_to(victim)
    assert net.ip("sync", "--interface", "lo").status == 74
    assert victim.read_text() == "mine\n"
    claims.unlink()
    claims.write_text("{")
    damaged = net.ip("sync", "--interface", "lo")
    assert damaged.status == 74
    assert "it is damaged" in damaged.err
    assert net.held() == set()


def test_an_address_of_another_machine_is_given_back(net: Net) -> None:
    """By ARP, and IPv6 by itself: those addresses are not kept, the others are there, and told to who knew them."""
    with namespace() as other:
        net.run(
            "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(other)
        )
        there = Net(other, net.virt)
        there.run("ip", "address", "add", "fd00::1/64", "dev", "v1", "nodad")
        there.run("ip", "address", "add", "192.0.2.1/24", "dev", "v1")
        there.run("ip", "link", "set", "v1", "up")
        net.run("ip", "link", "set", "v0", "up")
        net.run(
            "sh", "-ec", "ip link add w0 type veth peer w1; ip link set w0 up; ip link set w1 up"
        )
        early = net.run(sys.executable, "-c", EARLY)
        net.run("ip", "link", "delete", "w0")
        there.run("ip", "neighbour", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:09",
                  "nud", "stale", "dev", "v1")  # fmt: skip
        link = json.loads(there.run("ip", "-json", "link", "show", "v1").out)[0]["address"]
        done = net.ip("sync", "--interface", "v0")
        held = net.held()
        known = json.loads(there.run("ip", "-json", "neighbour", "show", "192.0.2.2").out)
        here = json.loads(net.run("ip", "-json", "link", "show", "v0").out)[0]["address"]
        taken = net.ip("add", "d1.com", "192.0.2.1", "--interface", "v0", "--no-probe")
        forced = net.held()  # both ends go with the other namespace
    assert early.out == "{}\n", early.err
    assert done.status == 73
    assert "cannot put fd00::1/128 on v0: another machine of that network has it" in done.err
    assert (
        f"cannot put 192.0.2.1/32 on v0: another machine of that network has it ({link})"
        in done.err
    )
    assert held == ALL - {"fd00::1/128", "192.0.2.1/32"}
    assert [one["lladdr"] for one in known] == [here]
    assert (taken.status, forced) == (0, held | {"192.0.2.1/32"})
