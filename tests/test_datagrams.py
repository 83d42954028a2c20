"""Many datagrams by one call, each with its sender; what comes along uninvited is not let in."""

import os
import socket
from collections.abc import Iterator

import pytest

from virttools.datagrams import Datagrams


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        yield sender, receiver


def test_each_datagram_comes_whole_with_its_sender(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """One or many, empty or cut, again and again from the same memory."""
    sender, receiver = pair
    mailbox = Datagrams(64)
    me = (os.getpid(), os.geteuid())
    for _ in range(2):
        for data in (b"first", b"", b"x" * 100):
            sender.send(data)
        found = mailbox.receive(receiver.fileno())
        assert found == [(b"first", False, *me), (b"", False, *me), (b"x" * 64, True, *me)]
        sender.send(b"alone")
        assert mailbox.receive(receiver.fileno()) == [(b"alone", False, *me)]
    with pytest.raises(BlockingIOError):
        mailbox.receive(receiver.fileno())


def test_descriptors_that_come_along_are_not_ours(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Who sends open files with its messages cannot fill the receiver's table of them."""
    sender, receiver = pair
    mailbox = Datagrams(64)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        socket.send_fds(sender, [b"take these"], [0] * 100)
    assert len(mailbox.receive(receiver.fileno())) == 3
    assert len(os.listdir("/proc/self/fd")) == before
