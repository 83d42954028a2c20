"""Clients behind a proxy: who they are is what its PROXY header says, and only a trusted proxy's."""

import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.calls import Virt
from tests.system.server import Server, connect, read, serving
from tests.system.serving import domain, free_ports, lines, live, refused, small_root
from tests.system.waiting import PATIENCE, until
from virttools.serve.proxied import SECONDS
from virttools.serve.proxyprotocol import V2_SIGNATURE

pytestmark = pytest.mark.usefixtures("as_root")
HERE, OTHER = "127.0.87.1", "127.0.87.2"
PROXY, STRANGER = "127.0.87.100", "127.0.87.200"
PORTS = free_ports(("who", "echo", "one", "from", "bob", "plain", "web"))
REST = f"nice={os.getpriority(os.PRIO_PROCESS, 0)} files={resource.getrlimit(resource.RLIMIT_NOFILE)[0]}\n"
CLIENT = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 21\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("proxy")
    with small_root(folder) as (virt, service):
        tables = [*map(table, ("who", "echo", "one", "from", "bob")), web()]
        domain(virt, "one.test", HERE, service, *tables)
        domain(virt, "two.test", OTHER, service, f'name = "plain"\nport = {PORTS["plain"]}')
        with serving(virt.root, folder) as started:
            yield started


def table(name: str) -> str:
    program = {"echo": "echo", "one": "hold"}.get(name, "who")
    limits = {
        "one": "per_source = 1",
        "from": 'only_from = ["192.0.2.0/24"]',
        "bob": 'user = "bob"',
    }
    limit = limits.get(name, "")
    return (
        f'name = "{name}"\nport = {PORTS[name]}\nargs = ["{program}"]\n{limit}\n'
        f'proxy_protocol = ["{PROXY}"]'
    )


def web() -> str:
    """A service whose proxy is this machine, and its probe."""
    table = f'name = "web"\nport = {PORTS["web"]}\nargs = ["web"]\nproxy_protocol = ["127.0.0.0/8"]'
    return f'{table}\n[[probes]]\nservice = "web"\nkind = "http"'


def ask(name: str, sent: bytes, source: str = PROXY) -> str:
    with connect(HERE, PORTS[name], source) as client:
        with contextlib.suppress(OSError):  # it was closed before all was said
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
        return read(client)


def told(remote: str, local: str) -> str:
    return f"one.test remote={remote} local={local} uid=0 "


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (CLIENT, told("192.0.2.9", "192.0.2.1")),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n", told("2001:db8::9", "2001:db8::1")),
        (b"PROXY UNKNOWN\r\n", told(PROXY, HERE)),
        (
            V2_SIGNATURE + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 9, 192, 0, 2, 1, 0, 80, 0, 21]),
            told("192.0.2.9", "192.0.2.1"),
        ),
        (V2_SIGNATURE + b"\x20\0\0\0", told(PROXY, HERE)),
        (b"GET / HTTP/1.0\r\n\r\n", ""),
        (b"PROXY TCP4 192.0.2.9 192.0.2.1 4711\r\n", ""),
        (b"", ""),
    ],
)
def test_the_client_is_who_the_header_names(running: Server, header: bytes, expected: str) -> None:
    """In both versions; a header that is none, or none at all, is no connection."""
    assert ask("who", header).startswith(expected)
    assert bool(ask("who", header)) is bool(expected)


def test_what_follows_the_header_is_the_programs(running: Server) -> None:
    """Not a byte more is taken, in one packet with the header or in pieces."""
    assert ask("echo", CLIENT + b"x" * 50_000) == "x" * 50_000
    with connect(HERE, PORTS["echo"], PROXY) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in CLIENT + b"hello":
            client.sendall(bytes([byte]))
        client.shutdown(socket.SHUT_WR)
        assert read(client) == "hello"


def test_a_worker_gets_the_connection_without_its_header(running: Server) -> None:
    """While others of that proxy wait for theirs, and are refused, and a worker is started."""
    in_time(beside_others)


def beside_others() -> bool | None:
    start = time.monotonic()
    with connect(HERE, PORTS["bob"], PROXY) as waiting, connect(HERE, PORTS["bob"], PROXY) as wrong:
        waiting.sendall(CLIENT[:10])
        assert ask("bob", CLIENT) == told("192.0.2.9", "192.0.2.1").replace("=0 ", "=1234 ") + REST
        wrong.sendall(b"HELO you\r\n")
        assert read(wrong) == ""
        waiting.sendall(CLIENT[10:])
        waiting.shutdown(socket.SHUT_WR)
        if time.monotonic() - start > SECONDS / 2:
            return None
        return read(waiting).startswith("one.test remote=192.0.2.9")


def in_time(trial: Callable[[], bool | None]) -> None:
    """A trial that is None where this host was too slow for a proxy that the server still waits for."""
    ends: list[bool] = []

    def ended() -> bool:
        end = trial()
        ends.extend(() if end is None else (end,))
        return bool(ends)

    until(ended, "a trial that was fast enough")
    assert ends == [True]


def test_a_stranger_names_nobody(running: Server) -> None:
    """His header is taken for what he says to the program."""
    assert ask("who", b"", STRANGER).startswith(told(STRANGER, HERE))
    assert ask("echo", CLIENT, STRANGER).encode() == CLIENT


def test_a_trial_begins_as_the_proxy_does(running: Server) -> None:
    """`virt test --live`, where who connects from this machine is taken for the proxy."""
    said = Virt(running.root).json("test", "one.test", "web", "--live")
    assert [(one["ok"], one["told"]) for one in said["services"]] == [(True, "GET /: 200, 3 bytes")]
    assert refused(running, "web", "one.test") == {}
    trial = Virt(running.root).json("test", "one.test", "web")  # a program of its own has no proxy
    assert trial["services"][0]["ok"]


def test_limits_are_of_the_client_not_of_the_proxy(running: Server) -> None:
    """per_source and only_from see the address in the header."""
    assert ask("from", CLIENT) != ""
    assert ask("from", CLIENT.replace(b"192.0.2.9", b"203.0.113.9")) == ""
    with (
        connect(HERE, PORTS["one"], PROXY) as first,
        connect(HERE, PORTS["one"], PROXY) as second,
        connect(HERE, PORTS["one"], PROXY) as third,
    ):
        first.sendall(CLIENT)
        assert first.recv(5) == b"held\n"
        second.sendall(CLIENT)
        assert read(second) == ""
        third.sendall(CLIENT.replace(b"192.0.2.9", b"192.0.2.10"))
        assert third.recv(5) == b"held\n"
    until(lambda: live(running, "one", "one.test") == 0, "the ends were not seen")
    assert refused(running, "one", "one.test") == {"per_source": 1}


def test_a_silent_proxy_keeps_nobody_waiting(running: Server) -> None:
    """Others are answered meanwhile; after a few seconds it is refused, which is logged."""
    before = refused(running, "who", "one.test").get("proxy", 0)
    silent = [connect(HERE, PORTS["who"], PROXY) for _ in range(50)]
    for number, client in enumerate(silent):
        client.sendall(CLIENT[: number % len(CLIENT)])
    with connect(OTHER, PORTS["plain"]) as client:
        assert read(client).startswith("two.test")
    assert ask("who", CLIENT).startswith("one.test")
    assert [read(client) for client in silent] == [""] * 50
    for client in silent:
        client.close()
    assert refused(running, "who", "one.test")["proxy"] == before + 50
    assert lines(running, "FAIL: who proxy_header domain=one.test", f"from={PROXY}")


def test_a_drained_server_still_reads_headers(tmp_path: Path) -> None:
    """What was accepted before TERM is answered."""
    with small_root(tmp_path) as (virt, service):
        domain(virt, "one.test", HERE, service, table("who").replace(str(PORTS["who"]), "19871"))
        in_time(lambda: drained(virt.root, tmp_path))


def drained(root: Path, folder: Path) -> bool | None:
    """Whether a half header is read to its end after TERM."""
    with serving(root, folder) as server, connect(HERE, 19871, PROXY) as client:
        start = time.monotonic()
        client.sendall(CLIENT[:20])
        until(lambda: is_taken(client), "nobody has read the half of it")
        server.process.terminate()
        server.wait_for("draining")
        client.sendall(CLIENT[20:])
        if time.monotonic() - start > SECONDS / 2:
            return None
        is_answered = read(client).startswith(told("192.0.2.9", "192.0.2.1"))
        return is_answered and server.process.wait(PATIENCE) == 0


def is_taken(client: socket.socket) -> bool:
    """Whether the other end of a connection has read all that was sent (proc(5): rx_queue is 0)."""
    port = f":{client.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[2].endswith(port) and words[3] == "01":
            return words[4].endswith(":00000000")
    return False
