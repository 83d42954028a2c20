"""`virt serve`: real domains on loopback addresses, and clients that connect to them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.calls import Virt
from tests.system.handmade import probe
from tests.system.server import ask, serving, until

pytestmark = pytest.mark.usefixtures("as_root")

PORT = 9310
MANIFEST = """
profiles = []
binaries = ["sh", "cat", "hostname", "env", "id", "sleep", "chroot", "mkdir", "ls", "kill"]
directories = [{ path = "/etc" }, { path = "/run" }, { path = "/tmp", mode = 0o1777 }]
users = [{ name = "web", uid = 4711 }]
groups = [{ name = "www", gid = 4712 }]
"""
ETC = '\n[etc]\nskeleton = ["passwd", "group", "hostname"]\n'
HELLO = f"""
[[services]]
name = "hello"
port = {PORT}
program = "/bin/sh"
args = ["-c", "hostname; pwd; id -u; echo $PROTO $TCPLOCALIP $TCPLOCALPORT $TCPREMOTEIP"]
"""


def service(name: str, port: int, script: str, more: str = "") -> str:
    return (
        f'\n[[services]]\nname = "{name}"\nport = {port}\nprogram = "/bin/sh"\n'
        f"args = ['-c', '{script}']\n{more}\n"
    )


Create = Callable[[str, str, str], None]


@pytest.fixture
def create(virt: Virt, tmp_path: Path) -> Create:
    """Makes a domain with an address and some services."""

    def make(domain: str, address: str, services: str) -> None:
        manifest = tmp_path / f"{domain}.toml"
        manifest.write_text(MANIFEST + services + ETC)
        virt.good("create", domain, "-m", str(manifest), "--ip", address)

    return make


def test_each_address_answers_from_its_own_tree(virt: Virt, create: Create, tmp_path: Path) -> None:
    """Two domains on one port: each child has its own root, host name and UCSPI variables."""
    create("d1.test", "127.0.10.1", HELLO)
    create("d2.test", "127.0.10.2", HELLO)
    with serving(virt.root, tmp_path) as server:
        for number in (1, 2):
            address = f"127.0.10.{number}"
            assert ask(address, PORT) == (f"d{number}.test\n/\n0\nTCP {address} {PORT} 127.0.0.1\n")
        assert ask("127.0.10.3", PORT) == ""  # no domain has that address
        until(lambda: server.service("hello", "d1.test")["live"] == 0, "no live connection")
        told = server.status()
        counts = [(one["domain"], one["served"], one["failed"]) for one in told["served"]]
        assert counts == [("d1.test", 1, 0), ("d2.test", 1, 0)]
        assert told["unrouted"] == 1
        assert "FAIL: - no_route 127.0.10.3 domain=- from=127.0.0.1" in server.log.read_text()


def test_a_child_has_nothing_of_the_server(virt: Virt, create: Create, tmp_path: Path) -> None:
    """Descriptors 0 to 2, default signals, umask 022 and "/": whatever the server was started with."""
    create(
        "d1.test",
        "127.0.10.1",
        f'\n[[services]]\nname = "probe"\nport = {PORT}\nprogram = "/tmp/probe"\n',
    )
    probe(virt.tree("d1.test")).rename(virt.tree("d1.test") / "tmp/probe")
    passed = os.open("/dev/null", os.O_RDONLY)
    with serving(virt.root, tmp_path, pass_fds=(passed,), umask=0o077):
        assert ask("127.0.10.1", PORT) == (
            "argv [/tmp/probe]\nfds 0 1 2\nignored\nblocked\numask 0022\ncwd /\n"
        )
    os.close(passed)


def test_a_user_of_the_domain_gets_a_worker(virt: Virt, create: Create, tmp_path: Path) -> None:
    """The service runs as the tree's own user and groups, and its process can signal no one of the server."""
    more = 'user = "web"\ngroups = ["www"]\nnice = 5\nrlimits = ["files=77"]'
    create(
        "d1.test",
        "127.0.10.1",
        service("web", PORT, "id -u; id -g; id -G; ulimit -n", more)
        + HELLO.replace(str(PORT), str(PORT + 1))
        + service("bad", PORT + 2, "kill -9 1; kill -9 -1", more),
    )
    with serving(virt.root, tmp_path) as server:
        before = server.children()
        assert ask("127.0.10.1", PORT).split("\n")[:4] == ["4711", "4711", "4711 4712", "77"]
        ask("127.0.10.1", PORT + 2)  # kills all that it may: its own worker
        until(lambda: server.service("bad", "d1.test")["live"] == 0, "the worker is missed")
        assert ask("127.0.10.1", PORT).split("\n")[0] == "4711"
        assert ask("127.0.10.1", PORT + 1).split("\n")[0] == "d1.test"
        assert server.children() == before


def test_root_inside_cannot_signal_the_server(virt: Virt, create: Create, tmp_path: Path) -> None:
    """Root of a domain sees pid 1 of a namespace that ignores it, and nobody else's processes."""
    create(
        "d1.test",
        "127.0.10.1",
        service("evil", PORT, "read pid; kill -9 1; kill -15 1; kill -9 $pid; echo survived"),
    )
    with serving(virt.root, tmp_path) as server:
        before = server.children()
        told = ask("127.0.10.1", PORT, f"{server.process.pid}\n".encode())
        assert told.split("\n")[-2] == "survived"
        assert "survived" in ask("127.0.10.1", PORT, b"1\n")
        assert (server.children(), server.process.poll()) == (before, None)
