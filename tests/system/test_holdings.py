"""Sockets of the server over reloads: of all addresses, then one for each, and back."""

import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.serving import free_ports
from tests.system.waiting import PATIENCE
from virttools.errors import Busy, ConfigError
from virttools.serve import listening, loading
from virttools.serve.board import Board, Endpoint, Place, Target
from virttools.serve.holdings import Holdings
from virttools.serve.journal import Journal
from virttools.serve.loading import Loaded

EVERY, MINE, THEIRS = "0.0.0.0", "127.0.3.1", "127.0.3.2"


@pytest.fixture
def held() -> Iterator[Holdings]:
    found = Holdings(Journal(to_stderr=True))
    yield found
    for name in found.home.__slots__:
        os.close(getattr(found.home, name))
    for listener in (*found.sockets.values(), *found.shut.values()):
        listener.close()


@pytest.fixture
def port() -> int:
    return free_ports(("one",))["one"]


def listen(held: Holdings, port: int, *addresses: str) -> None:
    board = Board((), tuple(Endpoint("tcp", address, port) for address in addresses))
    held.take(Loaded(board, {}))


def spawners(held: Holdings, address: str, port: int) -> socket.socket:
    """What a spawner has of that listener."""
    return socket.socket(fileno=os.dup(held.sockets["tcp", address, port].fileno()))


def answers(held: Holdings, asked: str, port: int, by: str) -> bool:
    """Whether who connects to asked is taken by that listener."""
    with (
        socket.create_connection((asked, port), PATIENCE) as client,
        spawners(held, by, port) as listener,
    ):
        listener.settimeout(PATIENCE)
        accepted, peer = listener.accept()
        accepted.close()
        return bool(peer == client.getsockname())


def test_one_socket_for_all_makes_room_for_one_each(held: Holdings, port: int) -> None:
    """Though a spawner has it still: the address of a daemon is free then, and later it is for all again."""
    listen(held, port, EVERY)
    with spawners(held, EVERY, port):
        listen(held, port, MINE)
        assert answers(held, MINE, port, by=MINE)
        with socket.create_server((THEIRS, port)):
            pass
        listen(held, port, EVERY)
        assert answers(held, THEIRS, port, by=EVERY)
    assert list(held.sockets) == [("tcp", EVERY, port)]


def test_where_somebody_else_is_in_the_way_all_stays(held: Holdings, port: int) -> None:
    """The old socket listens on, in spawners, too."""
    listen(held, port, MINE)
    with spawners(held, MINE, port) as old, socket.create_server((THEIRS, port)):
        with pytest.raises(Busy):
            listen(held, port, EVERY)
        assert [one.address for one in held.board.endpoints] == [MINE]
        assert answers(held, MINE, port, by=MINE)
        assert old.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_spawners_that_serve_on_after_all_listen_as_before(held: Holdings, port: int) -> None:
    """Those that were to replace them did not start: the sockets that they have are opened again."""
    listen(held, port, EVERY)
    before = held.board
    with spawners(held, EVERY, port) as old:
        listen(held, port, MINE)
        held.go_back(before)
        assert held.board is before
        assert old.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert answers(held, MINE, port, by=EVERY)


def waiting_room(held: Holdings, port: int) -> int:
    """How many connections may wait there: tcpi_sacked of tcp_info (tcp(7))."""
    found = held.sockets["tcp", MINE, port].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int.from_bytes(found[28:32], sys.byteorder)


def test_a_listener_has_the_queue_that_is_declared(held: Holdings, port: int) -> None:
    """As it is opened again after a set that could not be served, and as a reload declares it anew."""
    with socket.create_server((THEIRS, port)):
        for backlog in (7, 9):
            endpoint = Endpoint("tcp", MINE, port, backlog=backlog)
            held.take(Loaded(Board((), (endpoint,)), {}))
            assert waiting_room(held, port) == backlog
        with pytest.raises(Busy):
            listen(held, port, EVERY)
        assert waiting_room(held, port) == 9


def test_a_socket_of_a_service_manager_stays_its_own(
    held: Holdings, port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is neither shut nor closed where addresses change: it may be wanted again."""
    with socket.create_server(("", port)) as manager:
        key, passed = listening.passed(os.dup(manager.fileno())) or pytest.fail("no socket")
        held.sockets[key] = passed
        held.passed.add(key)
        listen(held, port, EVERY)
        before = held.board
        with pytest.raises(Busy, match=f"the service manager does, on tcp 0.0.0.0:{port}"):
            listen(held, port, MINE)
        assert held.board is before
        held.take(Loaded(Board(), {}))
        held.close_unused()
        assert f"the service manager listens on tcp 0.0.0.0:{port}" in capfd.readouterr().err
        listen(held, port, EVERY)
        assert answers(held, MINE, port, by=EVERY)
        assert manager.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def housed(folder: Path, count: int) -> Board:
    """A service in each of so many trees."""
    targets = []
    for number in range(count):
        tree = folder / f"d{number}.test"
        tree.mkdir()
        seen = tree.stat()
        place = Place(tree.name, str(tree), identity=(seen.st_dev, seen.st_ino))
        targets.append(Target("x", place, path=b"/x", argv=(b"x",), env={}))
    return Board(tuple(targets))


def test_more_domains_than_descriptors_at_first(held: Holdings, tmp_path: Path) -> None:
    """It is said where there are too few, and nothing stays open; what may be had is taken."""
    board, before = housed(tmp_path, 12), resource.getrlimit(resource.RLIMIT_NOFILE)
    used = set(os.listdir("/proc/self/fd"))
    held.files = (sorted(set(range(999)) - set(map(int, used)))[20], before[1])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, held.files)
        with pytest.raises(ConfigError, match="too many open files"):
            loading.load(lambda: board, held.home, frozenset())
        assert set(os.listdir("/proc/self/fd")) == used
        held.make_room()
        loaded = loading.load(lambda: board, held.home, frozenset())
        held.give_room_back()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == held.files
        held.give_room_back(held.files[0])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2 * held.files[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [len(fds) for fds in loaded.namespaces.values()] == [3] * 12
    for fd in [fd for fds in loaded.namespaces.values() for fd in fds]:
        os.close(fd)
