"""Doer: asks a network by ARP whether another machine has an address, and tells it that we have it now (RFC 5227)."""

import errno
import ipaddress
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from virttools.errors import ApplyError, NeedsPrivilege
from virttools.net.alias import Alias

PROBES = 3
PAUSE = 0.25
"""Seconds between the probes and after the last. The RFC's are for machines that nobody waits for."""

_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_NOBODY = bytes(4)
# hardware and protocol and how long their addresses are, operation, sender's two addresses, target's two
_FRAME = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)
_REQUEST = 1


def question(station: bytes, sender: bytes, address: bytes) -> bytes:
    """Who has that address? sender: 0.0.0.0 to ask, the address itself to tell that it is ours."""
    return _FRAME.pack(*_ETHERNET_IPV4, _REQUEST, station, sender, bytes(6), address)


def claimed(frame: bytes, station: bytes) -> bytes | None:
    """The address that another machine has, or is about to take, by this frame; None if it says neither."""
    if len(frame) < _FRAME.size:
        return None
    *kinds, operation, theirs, sender, _, target = _FRAME.unpack(frame[: _FRAME.size])
    if tuple(kinds) != _ETHERNET_IPV4 or theirs == station:
        return None
    if sender == _NOBODY:
        return bytes(target) if operation == _REQUEST else None
    return bytes(sender)


def elsewhere(interface: str, station: bytes, aliases: Sequence[Alias]) -> dict[Alias, str]:
    """Those of these IPv4 addresses that another machine of the network has, and its hardware address.

    Raises NeedsPrivilege, ApplyError.
    """
    asked = {ipaddress.IPv4Address(alias.address).packed: alias for alias in aliases}
    found: dict[Alias, str] = {}
    with _packets(interface) as packets:
        for _ in range(PROBES):
            for address, alias in asked.items():
                if alias not in found:
                    packets.send(question(station, _NOBODY, address))
            for frame in packets.until(time.monotonic() + PAUSE):
                who = asked.get(claimed(frame, station) or b"")
                if who is not None:
                    found.setdefault(who, frame[8:14].hex(":"))
    return found


def announce(interface: str, station: bytes, aliases: Sequence[Alias]) -> None:
    """Have neighbours that knew another machine by these addresses learn of us at once."""
    with _packets(interface) as packets:
        for alias in aliases:
            address = ipaddress.IPv4Address(alias.address).packed
            packets.send(question(station, address, address))


class _Packets:
    def __init__(self, interface: str, open_socket: socket.socket) -> None:
        self._to = (interface, _ARP, 0, 0, _BROADCAST)
        self._socket = open_socket

    def send(self, frame: bytes) -> None:
        self._socket.sendto(frame, self._to)

    def until(self, end: float) -> Iterator[bytes]:
        """The frames that come before then."""
        while (left := end - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                yield self._socket.recv(2048)


@contextmanager
def _packets(interface: str) -> Iterator[_Packets]:
    try:
        # Of no protocol until it is bound: it would hear all other interfaces until then (packet(7)).
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as opened:
            opened.bind((interface, _ARP))
            yield _Packets(interface, opened)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise NeedsPrivilege(
                f"cannot ask on {interface} who has an address: it needs CAP_NET_RAW",
                hint="run it as root, outside of a container, or with --no-probe",
            ) from error
        raise ApplyError(
            f"cannot ask on {interface} who has an address: {error.strerror}",
            hint="--no-probe does not ask",
        ) from error
