"""Doer: looks at what descriptor 0 of a program that inetd starts is: connection, listener or datagrams."""

import _socket
import os

from virttools.errors import UsageError

# linux/in.h and linux/in6.h; struct in_pktinfo and in6_pktinfo
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
_ADDRESS_IN_PKTINFO = slice(8, 12)
_ADDRESS_IN_PKTINFO6 = slice(0, 16)


class Connection:
    """The ends of it. remote None: nobody yet, or no more; is_shared: datagrams to any address come in."""

    __slots__ = ("is_shared", "local", "protocol", "remote")

    def __init__(self, protocol: str, local: tuple[str, int]) -> None:
        self.protocol = protocol
        self.local = local
        self.remote: tuple[str, int] | None = None
        self.is_shared = False


def read(fd: int = 0) -> Connection:
    """What that descriptor is; nothing is taken from it. Raises UsageError where it is no such thing."""
    try:
        socket = _socket.socket(fileno=fd)
    except OSError as error:
        raise UsageError(
            f"cannot tell the local address: descriptor {fd} is no connection: {error.strerror}"
        ) from error
    try:
        return _read(socket)
    finally:
        socket.detach()


def _read(socket: _socket.socket) -> Connection:
    name = socket.getsockname()
    if not isinstance(name, tuple) or len(name) < 2 or not isinstance(name[0], str):
        raise UsageError("cannot tell the local address: descriptor 0 is no internet connection")
    is_datagram = socket.type & 0xF == _socket.SOCK_DGRAM
    found = Connection("UDP" if is_datagram else "TCP", (name[0], name[1]))
    try:  # noqa: SIM105  contextlib would be loaded for every connection
        found.remote = socket.getpeername()[:2]
    except OSError:
        pass  # a listener, or a client that has left
    if is_datagram and found.remote is None:
        _look_at_datagram(socket, found)
    return found


def _look_at_datagram(socket: _socket.socket, found: Connection) -> None:
    """Where the first datagram in the queue comes from, and where it went (ip(7), ipv6(7))."""
    found.is_shared = found.local[0] in ("0.0.0.0", "::")  # noqa: S104  told, not bound
    level, option = _socket.IPPROTO_IP, _IP_PKTINFO
    if socket.family == _socket.AF_INET6:
        level, option = _socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO
    before = socket.getsockopt(level, option)
    socket.setsockopt(level, option, 1)
    try:
        flags = _socket.MSG_PEEK | _socket.MSG_DONTWAIT
        _, control, _, remote = socket.recvmsg(1, 256, flags)
    except OSError:
        return  # someone else took it
    finally:
        socket.setsockopt(level, option, before)
    found.remote = remote[:2]
    if found.is_shared:
        for _, kind, content in control:
            place = _destination(kind, content)
            if place:
                found.local = (place, found.local[1])


def _destination(kind: int, content: bytes) -> str:
    if kind == _IP_PKTINFO:
        return _socket.inet_ntop(_socket.AF_INET, content[_ADDRESS_IN_PKTINFO])
    if kind == _IPV6_RECVPKTINFO + 1:  # the message is an IPV6_PKTINFO
        return _socket.inet_ntop(_socket.AF_INET6, content[_ADDRESS_IN_PKTINFO6])
    return ""


def drop(fd: int = 0) -> None:
    """Take away the datagram, or the waiting connection, that will not be served.

    inetd would start us for it again and again, and close the service in the end.
    """
    try:
        socket = _socket.socket(fileno=fd)
    except OSError:
        return
    try:
        if socket.type & 0xF == _socket.SOCK_DGRAM:
            socket.recv(1, _socket.MSG_DONTWAIT)
        elif socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            _drop_waiting(fd)
    except OSError:
        pass  # somebody else took it
    finally:
        socket.detach()


def _drop_waiting(fd: int) -> None:
    import select
    import socket

    with socket.socket(fileno=os.dup(fd)) as listener:
        if select.select([fd], [], [], 0)[0]:
            listener.accept()[0].close()
