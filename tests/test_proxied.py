"""Connections of proxies: what is read of each, how long one may wait, and how many."""

import socket

import pytest

from virttools.serve.proxied import MOST, SECONDS, Pending, Pendings
from virttools.serve.proxyprotocol import ProxyError

HEADER = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 21\r\n"


def pending(connection: socket.socket, number: int = 0) -> Pending:
    return Pending(connection, number, ("10.0.0.1", 21), ("10.0.0.2", 4000), number)


def test_a_header_may_come_in_pieces_and_the_rest_stays() -> None:
    """What the client says is left for the program."""
    proxy, ours = socket.socketpair()
    with proxy, ours:
        one = pending(ours)
        for byte in HEADER[:-1]:
            proxy.sendall(bytes([byte]))
            assert one.read() is None
        proxy.sendall(HEADER[-1:] + b"USER bob\r\n")
        found = one.read()
        assert found is not None
        assert (found.source, found.destination) == (("192.0.2.9", 4711), ("192.0.2.1", 21))
        assert ours.recv(100) == b"USER bob\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.0\r\n", HEADER[:-3]])
def test_without_a_header_there_is_no_connection(sent: bytes) -> None:
    """One that leaves, or speaks otherwise."""
    proxy, ours = socket.socketpair()
    with proxy, ours:
        proxy.sendall(sent)
        proxy.close()
        with pytest.raises(ProxyError):
            pending(ours).read()


def test_none_waits_for_ever_and_not_too_many() -> None:
    """The oldest go first; with none there is nothing to wake up for."""
    proxy, ours = socket.socketpair()
    with proxy, ours:
        pendings = Pendings()
        others = [ours.dup() for _ in range(MOST)]
        for number, other in enumerate(others):
            pendings.add(pending(other, number))
        with pytest.raises(ProxyError):
            pendings.add(pending(ours))
        assert (pendings.due(), len(pendings)) == (SECONDS, MOST)
        assert [one.position for one in pendings.expired(SECONDS + 1)] == [0, 1]
        assert others[0].fileno() not in pendings
        pendings.remove(pendings.get(others[2].fileno()))
        assert len(pendings.expired(1e9)) == MOST - 3
        assert pendings.due() is None
        for other in others:
            other.close()
