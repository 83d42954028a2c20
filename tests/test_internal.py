"""inetd's internal services, each as the program that the server starts for it."""

import socket
import subprocess
import time

import pytest

from tests.system.waiting import PATIENCE
from virttools.serve import internal

SERVICES = ["echo", "discard", "daytime", "time", "chargen"]


def started(service: str, connection: socket.socket) -> subprocess.Popen[bytes]:
    fd = connection.fileno()
    return subprocess.Popen(internal.command(service), stdin=fd, stdout=fd)


def told(service: str, sent: bytes, most: int = 100_000) -> bytes:
    """What a client reads who sends that, and no more."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = started(service, theirs)
        theirs.close()
        ours.settimeout(PATIENCE)
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        found = b""
        while len(found) < most and (received := ours.recv(65536)):
            found += received
        ours.close()
        assert process.wait(PATIENCE) == 0
    return found


def test_a_connection_is_answered() -> None:
    """As RFC 862, 863, 867 and 868 say."""
    assert told("echo", b"x" * 100_000) == b"x" * 100_000
    assert told("discard", b"x" * 100_000) == b""
    assert time.strptime(told("daytime", b"").decode(), "%a %b %d %H:%M:%S %Y\r\n")
    assert abs(int.from_bytes(told("time", b"")) - 2_208_988_800 - time.time()) < 60


def test_characters_come_without_end() -> None:
    """Lines of 72, each a character further, until the client leaves (RFC 864)."""
    lines = told("chargen", b"", 30_000).split(b"\r\n")
    assert lines[0] == bytes(range(32, 104))
    assert lines[1] == bytes(range(33, 105))
    assert lines[90] == bytes([*range(122, 127), *range(32, 99)])
    assert lines[95] == lines[0]


def test_an_unknown_service_is_a_status() -> None:
    """2, and nothing for the client."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert started("nothing", theirs).wait(PATIENCE) == 2


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("192.0.2.1", 4000, False),
        ("192.0.2.1", 7, True),
        ("192.0.2.1", 2049, True),
        ("127.0.0.1", 4000, True),
        ("0.0.0.0", 4000, True),
        ("255.255.255.255", 4000, True),
        ("224.0.0.1", 4000, True),
        ("239.1.1.1", 4000, True),
        ("2001:db8::1", 4000, False),
        ("fe80::1%lo", 4000, False),
        ("::1", 4000, False),
        ("::", 4000, True),
        ("ff02::1", 4000, True),
        ("::ffff:192.0.2.1", 4000, True),
    ],
)
def test_two_services_are_not_made_to_talk(address: str, port: int, expected: bool) -> None:  # noqa: FBT001
    """An answer to port 7 of another machine would go to and fro for ever; inetd refuses the same."""
    assert internal.is_suspicious(address, port) is expected


@pytest.mark.parametrize("service", SERVICES)
def test_a_datagram_is_answered(service: str) -> None:
    """From the waiting socket that the server passes; one server for all that come."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("::1", 0))
        process = started(service, server)
        try:
            client.settimeout(PATIENCE)
            for number in range(2):
                client.sendto(b"hello %d" % number, server.getsockname())
            answers = [client.recv(4096) for _ in range(0 if service == "discard" else 2)]
        finally:
            process.kill()
            process.wait()
    match service:
        case "echo":
            assert answers == [b"hello 0", b"hello 1"]
        case "time":
            assert [len(answer) for answer in answers] == [4, 4]
        case "daytime" | "chargen":
            assert all(answer.endswith(b"\r\n") for answer in answers)
        case _:
            assert answers == []
