"""What a machine or a domain lacks: the server stays, other domains notice nothing, and it is counted and logged."""

import resource
import socket
from collections.abc import Iterator

import pytest

from tests.system.server import Server, ask, serving, until
from tests.system.serving import domain, free_ports, lines, live, refused, small_root

pytestmark = pytest.mark.usefixtures("as_root")
ONE, TWO, GONE = "127.0.88.1", "127.0.88.2", "127.0.88.3"
PORTS = free_ports(("forks", "memory", "crowd", "who", "gone"))
CROWD, PLACES = 3000, 4


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
        until(
            lambda number=number: running.service("forks", "one.test")["failed"] == number,
            "not every failure was counted",
        )
    assert is_served()
    assert lines(running, "forks one.test: cannot run", "Resource temporarily unavailable")
    until(lambda: live(running, "forks", "one.test") == 0, "one counts as live")


def test_a_user_who_has_no_memory(running: Server) -> None:
    """Its worker or its program dies: only these connections end."""
    for _ in range(5):
        assert ask(ONE, PORTS["memory"]) == ""
    assert is_served()
    until(lambda: live(running, "memory", "one.test") == 0, "one counts as live")


def test_a_crowd_at_once(running: Server) -> None:
    """More than the backlog takes connect at once: a few are served, each of the others is told, and counted."""
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
        until(
            lambda: sum(refused(running, "crowd", "one.test").values()) == CROWD - PLACES,
            "not every refusal was counted",
        )
        assert live(running, "crowd", "one.test") == PLACES
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: live(running, "crowd", "one.test") == 0, "the ends were not seen")
    assert 1 <= len(lines(running, "FAIL: crowd service_limit")) <= 8


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
