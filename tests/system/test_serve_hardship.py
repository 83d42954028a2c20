"""What a machine or a domain lacks: the server stays, other domains notice nothing, and it is counted and logged."""

import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.system.server import Server, ask, serving
from tests.system.serving import domain, free_ports, lines, live, most_lines, refused, small_root
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("as_root")
ONE, TWO, GONE = "127.0.88.1", "127.0.88.2", "127.0.88.3"
PORTS = free_ports(("forks", "memory", "crowd", "who", "gone", "conf"))
CROWD, PLACES = 10_000, 4


def table(name: str, *more: str, arg: str = "who") -> str:
    return "\n".join([f'name = "{name}"', f"port = {PORTS[name]}", f'args = ["{arg}"]', *more])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hardship")
    with small_root(folder) as (virt, service):
        bob = 'user = "bob"'
        domain(
            virt,
            "one.test",
            ONE,
            service,
            table("forks", bob, 'rlimits = ["nproc=1"]'),
            table("memory", bob, 'rlimits = ["as=64K"]'),
            table("crowd", f"instances = {PLACES}", arg="hold"),
        )
        domain(virt, "two.test", TWO, service, table("who"))
        domain(virt, "gone.test", GONE, service, table("gone"))
        with serving(virt.root, folder) as started:
            yield started
            assert started.process.poll() is None


def is_served() -> bool:
    """Whether the other domain is."""
    return ask(TWO, PORTS["who"]).startswith("two.test ")


def test_a_user_who_may_not_fork(running: Server) -> None:
    """EAGAIN: closed, a failure for each in the counters, a line in the log."""
    for number in range(1, 6):
        assert ask(ONE, PORTS["forks"]) == ""
        until(partial(has_failed, running, number), "every failure is counted")
    assert is_served()
    assert lines(running, "forks one.test: cannot run", "Resource temporarily unavailable")
    until(lambda: live(running, "forks", "one.test") == 0, "one counts as live")


def has_failed(running: Server, times: int) -> bool:
    return bool(running.service("forks", "one.test")["failed"] == times)


def test_a_user_who_has_no_memory(running: Server) -> None:
    """Its worker or its program dies: only these connections end."""
    for _ in range(5):
        assert ask(ONE, PORTS["memory"]) == ""
    assert is_served()
    until(lambda: live(running, "memory", "one.test") == 0, "one counts as live")


def test_a_crowd_at_once(running: Server) -> None:
    """More than the backlog takes connect at once: a few are served, each of the others is told, and counted."""
    begun = time.monotonic()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, CROWD + 500)), hard))
    clients = []
    try:
        for _ in range(CROWD):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((ONE, PORTS["crowd"]))
            clients.append(client)
        assert is_served()
        told = 0
        while told < CROWD - PLACES:  # who found the queue full tries again, at last after a minute
            until(partial(has_refused, running, told + 1), f"a refusal after {told} of them")
            told = refusals(running)
        assert told == CROWD - PLACES
        assert live(running, "crowd", "one.test") == PLACES
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: live(running, "crowd", "one.test") == 0, "the ends were not seen")
    assert 1 <= len(lines(running, "FAIL: crowd service_limit")) <= most_lines(running, begun)


def refusals(running: Server) -> int:
    return sum(refused(running, "crowd", "one.test").values())


def has_refused(running: Server, most: int) -> bool:
    return refusals(running) >= most


def test_a_server_that_has_no_memory(running: Server) -> None:
    """What cannot be started is closed and told, or the spawner is started anew; then all is as before."""
    pids = running.children()
    unlimited = [resource.prlimit(pid, resource.RLIMIT_AS) for pid in pids]
    for pid in pids:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), unlimited[0][1]))
    assert not all(is_served() for _ in range(20))
    for pid, limits in zip(pids, unlimited, strict=True):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, limits)
    until(is_served, "it does not recover")
    assert all(is_served() for _ in range(20))
    assert lines(running, "Cannot allocate memory") or lines(running, "starting anew")


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[str]]]:
    """A server in a network of its own, and what runs a program in the one at the other end of a wire."""
    folder = tmp_path_factory.mktemp("wire")
    up = "ip link set lo up; ip link add v0 type veth peer name v1; ip address add 10.9.0.1/16 dev v0"
    near = ["unshare", "--net", "sh", "-ec", f'{up}; ip link set v0 up; exec "$@"', "sh"]
    with small_root(folder) as (virt, service):
        domain(virt, "one.test", "10.9.0.1", service, table("who"))
        other = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        inside = ["nsenter", f"--net=/proc/{other.pid}/ns/net"]
        try:
            with serving(virt.root, folder, wrapper=near) as started:
                here = ["nsenter", f"--net=/proc/{started.process.pid}/ns/net"]
                until(lambda: is_apart(other.pid), "a network of its own")
                subprocess.run(
                    [*here, "ip", "link", "set", "v1", "netns", str(other.pid)], check=True
                )
                script = "ip address add 10.9.0.2/16 dev v1; ip link set v1 up; ip link set lo up"
                subprocess.run([*inside, "sh", "-ec", script], check=True)
                yield started, inside
        finally:
            other.communicate()


def is_apart(pid: int) -> bool:
    links = (Path(f"/proc/{one}/ns/net").readlink() for one in (pid, "self"))
    return len(set(links)) == 2


SYNS = """
import random, socket, struct, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
there = socket.inet_aton("10.9.0.1")
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

def checked(words):
    total = sum(struct.unpack("!%dH" % (len(words) // 2), words))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff

for number in range(count):
    source = struct.pack("!BBH", 10, 9, 0x1000 + number % 0xe000)
    head = (random.randrange(1024, 65536), port, random.getrandbits(32), 0, 0x50, 2, 1024)
    pseudo = source + there + struct.pack("!BBH", 0, 6, 20)
    sum_ = checked(pseudo + struct.pack("!HHIIBBHHH", *head, 0, 0))
    tcp = struct.pack("!HHIIBBHHH", *head, sum_, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, source, there)
    raw.sendto(ip + tcp, ("10.9.0.1", 0))
"""
ASK = """
import socket, sys
for _ in range(20):
    with socket.create_connection(("10.9.0.1", int(sys.argv[1])), 100) as connection:
        assert connection.makefile().read().startswith("one.test "), "no answer"
"""


def test_a_flood_of_half_open_connections(wire: tuple[Server, list[str]]) -> None:
    """More SYNs than the backlog holds, from addresses that never answer: who does answer is served."""
    server, inside = wire
    port = str(PORTS["who"])
    flood = subprocess.Popen([*inside, "python3", "-c", SYNS, port, "20000"])
    subprocess.run([*inside, "python3", "-c", ASK, port], check=True, timeout=2 * PATIENCE)
    assert flood.wait(PATIENCE) == 0
    subprocess.run([*inside, "python3", "-c", ASK, port], check=True, timeout=2 * PATIENCE)
    halves = [*inside[:1], f"--net=/proc/{server.process.pid}/ns/net", "cat", "/proc/net/netstat"]
    told = subprocess.run(halves, capture_output=True, text=True, check=True).stdout.splitlines()
    names, values = (line.split() for line in told if line.startswith("TcpExt:"))
    assert int(dict(zip(names, values, strict=True))["SyncookiesSent"]) > 1000
    assert server.service("who", "one.test")["served"] == 40


def test_a_conf_that_is_rewritten_while_it_is_read(tmp_path: Path) -> None:
    """By an editor that truncates first: no reload sees half of it, no connection goes astray."""
    with small_root(tmp_path) as (virt, service):
        domain(virt, "one.test", ONE, service)
        routes = tmp_path / "routes"
        filler = "".join(
            f"127.77.{at // 250}.{at % 250} {virt.tree('one.test')}\n" for at in range(2000)
        )
        text = f"{filler}{ONE} {virt.tree('one.test')}\n"
        routes.write_text(text)
        line = f"virtuald virtuald {routes} /bin/service who"
        conf = tmp_path / "inetd.conf"
        conf.write_text(f"{PORTS['conf']} stream tcp nowait root /usr/sbin/{line}\n")
        is_over = threading.Event()

        def rewrite() -> None:
            while not is_over.wait(0.2):
                routes.write_text(text)

        with serving(virt.root, tmp_path, "--inetd", str(conf)) as server:
            writer = threading.Thread(target=rewrite)
            writer.start()
            try:
                for _ in range(8):
                    server.reload()
                    answer = ask(ONE, PORTS["conf"])
                    assert answer.startswith("one.test "), server.lines()
                server.signal(signal.SIGHUP)
            finally:
                is_over.set()
                writer.join()
            assert not lines(server, "no_route")


def test_a_domain_that_is_removed_while_it_is_served(running: Server) -> None:
    """Its clients find nobody, the log says what is missing; after a reload it is forgotten."""
    from tests.system.calls import Virt

    assert ask(GONE, PORTS["gone"]).startswith("gone.test ")
    Virt(running.root).good("remove", "--yes", "gone.test")
    assert ask(GONE, PORTS["gone"]) == ""
    assert is_served()
    until(lambda: bool(lines(running, "gone gone.test: cannot run")), "the log does not say it")
    running.reload()
    assert {one["domain"] for one in running.status()["served"]} == {"one.test", "two.test"}
    assert is_served()
