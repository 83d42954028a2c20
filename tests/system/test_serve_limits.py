"""What a service's limits keep out, under the real server; and that a flood stays in its domain."""

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.calls import VIRT, Virt
from tests.system.server import Server, ask, connect, serving
from tests.system.server import read as receive
from tests.system.serving import (
    domain,
    free_ports,
    held,
    lines,
    live,
    most_lines,
    refused,
    small_root,
)
from tests.system.waiting import until
from tests.test_metrics import read

pytestmark = pytest.mark.usefixtures("as_root")
ONE, TWO = "127.0.84.1", "127.0.84.2"
PORTS = free_ports(
    ("source", "instances", "fast", "from", "closed", "open", "bob", "who", "flooded", "far")
)


def hours(first: int, last: int) -> str:
    """A span of hours from now, by the clock of this host."""
    now = time.localtime().tm_hour
    return f'access_times = ["{(now + first) % 24}:00-{(now + last) % 24}:00"]'


def table(name: str, *lines: str, arg: str = "who") -> str:
    return "\n".join([f'name = "{name}"', f"port = {PORTS[name]}", f'args = ["{arg}"]', *lines])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    with small_root(folder) as (virt, service):
        domain(
            virt,
            "one.test",
            ONE,
            service,
            table("source", "per_source = 2", arg="hold"),
            table("instances", "instances = 3", arg="hold"),
            table("fast", 'cps = "3 3600"'),
            table("from", 'only_from = ["127.0.84.0/24"]', 'no_access = ["127.0.84.66"]'),
            table("closed", hours(2, 3)),
            table("open", hours(0, 3)),
            table("bob", 'user = "bob"', "nice = 5", 'rlimits = ["files=77"]'),
            table("flooded", "instances = 4", arg="hold"),
            table("far", 'no_access = ["127.128.0.0/9"]'),
        )
        domain(virt, "two.test", TWO, service, table("who"))
        zone = {name: os.environ[name] for name in ("TZ",) if name in os.environ}
        with serving(virt.root, folder, env=zone) as started:
            yield started


def leave(*clients: socket.socket | None) -> None:
    for client in clients:
        if client is not None:
            client.close()


def test_a_source_has_so_many_connections(running: Server) -> None:
    """The third of one client is closed at once, another client comes in, and so does the first when one ended."""
    port = PORTS["source"]
    first = [held(ONE, port, source="127.0.84.50") for _ in range(3)]
    other = held(ONE, port, source="127.0.84.51")
    assert [client is not None for client in (*first, other)] == [True, True, False, True]
    assert refused(running, "source", "one.test") == {"per_source": 1}
    leave(first[0])
    until(lambda: live(running, "source", "one.test") == 2, "the end was not seen")
    again = held(ONE, port, source="127.0.84.50")
    assert again is not None
    leave(*first, other, again)
    until(lambda: live(running, "source", "one.test") == 0, "the ends were not seen")


def test_a_service_has_so_many_connections(running: Server) -> None:
    """Whoever they come from."""
    port = PORTS["instances"]
    clients = [held(ONE, port, source=f"127.0.84.{100 + number}") for number in range(5)]
    assert [client is not None for client in clients] == [True] * 3 + [False] * 2
    leave(*clients)
    assert refused(running, "instances", "one.test") == {"instances": 2}
    until(lambda: live(running, "instances", "one.test") == 0, "the ends were not seen")


def test_a_service_that_is_called_too_often_rests(running: Server) -> None:
    """All after the third of a second are refused, for the time declared."""
    clients = [connect(ONE, PORTS["fast"]) for _ in range(20)]
    served = [line for line in map(receive, clients) if line]
    leave(*clients)
    assert 3 <= len(served) < 20
    assert ask(ONE, PORTS["fast"]) == ""
    assert refused(running, "fast", "one.test") == {"cps": 21 - len(served)}


@pytest.mark.parametrize(
    ("source", "is_served"), [("127.0.84.9", True), ("127.0.84.66", False), ("127.0.85.1", False)]
)
def test_networks_come_in_or_stay_out(running: Server, source: str, is_served: bool) -> None:  # noqa: FBT001
    """The closest of only_from and no_access decides."""
    assert bool(ask(ONE, PORTS["from"], source=source)) is is_served


def test_a_service_has_its_hours(running: Server) -> None:
    """By the clock of the host."""
    assert (ask(ONE, PORTS["closed"]), bool(ask(ONE, PORTS["open"]))) == ("", True)
    assert refused(running, "closed", "one.test") == {"time": 1}


def test_a_program_runs_with_what_was_declared(running: Server) -> None:
    """As a user of the tree, at its priority and within its resource limits."""
    assert ask(ONE, PORTS["bob"], source="127.0.84.7") == (
        f"one.test remote=127.0.84.7 local={ONE} uid=1234 nice=5 files=77\n"
    )


def test_counters_are_told_in_three_forms(running: Server, tmp_path: Path) -> None:
    """Tab-separated lines in a pipe, JSON, and a file that Prometheus can read: the same numbers."""
    leave(*(held(ONE, PORTS["instances"], source="127.0.84.33") for _ in range(4)))
    until(lambda: live(running, "instances", "one.test") == 0, "the ends were not seen")
    asked = [str(VIRT), "serve", "--status", "--metrics", str(tmp_path / "virt.prom")]
    env = {"PATH": "/usr/bin:/bin", "VIRT_ROOT": str(running.root)}
    told = subprocess.run(asked, env=env, capture_output=True, text=True, check=True).stdout
    rows = {tuple(row[:2]): row[2:] for row in (line.split("\t") for line in told.splitlines())}
    of = running.service("instances", "one.test")
    assert rows["instances", "one.test"] == [
        " ".join(of["listens"]),
        "0",
        str(of["served"]),
        "0",
        f"{of['refused']['instances']} instances={of['refused']['instances']}",
    ]
    samples = read((tmp_path / "virt.prom").read_text())
    virt = Virt(running.root)
    assert read(virt.good("serve", "--metrics", "-")).keys() == samples.keys()
    done = virt("serve", "--metrics", "/nowhere/virt.prom")
    assert (done.status, done.err.splitlines()[0]) == (
        74,
        "virt: cannot write /nowhere/virt.prom: No such file or directory",
    )
    labels = (("service", "instances"), ("domain", "one.test"))
    assert samples["virt_serve_served_total", labels] == of["served"] > 0
    refusals = samples["virt_serve_refused_total", (*labels, ("reason", "instances"))]
    assert refusals == of["refused"]["instances"] > 0


def test_a_flood_is_two_lines_in_the_log(running: Server) -> None:
    """One at once, one with the count; every refusal is in the counters."""
    port, begun = PORTS["flooded"], time.monotonic()
    inside = [held(ONE, port) for _ in range(4)]
    assert all(inside)
    for _ in range(500):
        assert held(ONE, port) is None
    leave(*inside)
    assert refused(running, "flooded", "one.test") == {"instances": 500}
    until(lambda: counted(running) == 500, "the log does not account for all")
    assert len(lines(running, "FAIL: flooded")) <= most_lines(running, begun)


def counted(server: Server) -> int:
    """The refusals that the log tells of: one a line, or so many more."""
    told = [line.partition("refused=") for line in lines(server, "FAIL: flooded")]
    return sum(int(more.split()[0]) if more else 1 for _, _, more in told)


def test_a_flooded_domain_leaves_the_others_alone(running: Server) -> None:
    """While one domain is called thousands of times, every call to another is answered."""
    inside = [held(ONE, PORTS["flooded"]) for _ in range(4)]
    stop = threading.Event()
    calls = [0] * 4

    def flood(number: int) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                leave(held(ONE, PORTS["flooded"], source=f"127.0.84.{200 + number}"))
                calls[number] += 1

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: min(calls) > 20, "the flood did not begin")
        told = [ask(TWO, PORTS["who"]) for _ in range(200)]
        until(lambda: sum(calls) > 200, "thousands of calls")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        leave(*inside)
    assert {line.split(" ")[0] for line in told} == {"two.test"}


def test_ten_thousand_sources_cost_no_memory(running: Server) -> None:
    """Who is refused leaves nothing behind."""
    before = sum(map(processes.resident, running.children()))
    for number in range(10_000):
        source = f"127.{128 + number % 100}.{number // 250}.{1 + number % 250}"
        client = socket.socket()
        client.bind((source, 0))
        client.connect((ONE, PORTS["far"]))
        client.close()
    until(
        lambda: refused(running, "far", "one.test") == {"address": 10_000},
        "not every refusal was counted",
    )
    assert sum(map(processes.resident, running.children())) - before < 1024  # kB
    assert bool(ask(ONE, PORTS["far"])) is True
