"""Doer: a network of its own for this process: the loopback interface, with addresses of a domain's."""

import contextlib
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable

from virttools import linux

# linux/sockios.h, linux/if.h
_SIOCSIFFLAGS, _SIOCSIFADDR = 0x8914, 0x8916
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_CLONE_NEWNET = 0x40000000
_QUEUE = "/proc/sys/net/unix/max_dgram_qlen"


def leave(addresses: Iterable[str]) -> None:
    """Leave the host's network for one where only these addresses are, and 127.0.0.1. Raises OSError."""
    linux.unshare(_CLONE_NEWNET)
    # A log of ten lines that nobody takes would have syslog(3) wait. /proc/sys may be read-only.
    with contextlib.suppress(OSError), open(_QUEUE, "w", encoding="ascii") as file:
        file.write("1000")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        flags = struct.pack("16sH14x", b"lo", _IFF_UP | _IFF_RUNNING)
        fcntl.ioctl(asked, _SIOCSIFFLAGS, flags)
        for number, address in enumerate(addresses):
            if ":" in address:
                _add_v6(address)
            elif not ipaddress.ip_address(address).is_loopback:
                _add_v4(asked, f"lo:{number}".encode(), address)


def _add_v4(asked: socket.socket, alias: bytes, address: str) -> None:
    place = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton(address))
    fcntl.ioctl(asked, _SIOCSIFADDR, struct.pack("16s16s8x", alias, place))


def _add_v6(address: str) -> None:
    """A struct in6_ifreq: address, length of the prefix, number of the interface."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    if packed == socket.inet_pton(socket.AF_INET6, "::1"):
        return
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asked:
        wanted = struct.pack("=16sIi", packed, 128, socket.if_nametoindex("lo"))
        fcntl.ioctl(asked, _SIOCSIFADDR, wanted)
