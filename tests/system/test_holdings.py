"""Sockets of the server over reloads: of all addresses, then one for each, and back."""

import os
import socket
from collections.abc import Iterator

import pytest

from virttools.errors import Busy
from virttools.serve.board import Board, Endpoint
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
    for listener in found.sockets.values():
        listener.close()


@pytest.fixture
def port() -> int:
    with socket.create_server((MINE, 0)) as found:
        number: int = found.getsockname()[1]
        return number


def listen(held: Holdings, port: int, *addresses: str) -> None:
    board = Board((), tuple(Endpoint("tcp", address, port) for address in addresses))
    held.take(Loaded(board, {}))


def spawners(held: Holdings, address: str, port: int) -> socket.socket:
    """What a spawner has of that listener."""
    return socket.socket(fileno=os.dup(held.sockets["tcp", address, port].fileno()))


def answers(held: Holdings, asked: str, port: int, by: str) -> bool:
    """Whether who connects to asked is taken by that listener."""
    with socket.create_connection((asked, port), 5) as client, spawners(held, by, port) as listener:
        listener.settimeout(5)
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
