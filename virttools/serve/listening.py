"""Doer: opens the sockets of the endpoints, or takes those that a service manager passed."""

import _socket
import os

from virttools.errors import Busy, ConfigError
from virttools.serve.board import Endpoint

Key = tuple[str, str, int]

_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_EADDRINUSE = 98
_STREAM = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM}


def listen(endpoint: Endpoint) -> _socket.socket:
    """A socket that listens; of datagrams, that is bound. Raises Busy, ConfigError."""
    family = _socket.AF_INET6 if ":" in endpoint.address else _socket.AF_INET
    found = _socket.socket(family, _STREAM[endpoint.kind] | _socket.SOCK_CLOEXEC)
    try:
        found.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            found.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            found.setsockopt(_socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            # An address may come up after the server (ip(7)).
            found.setsockopt(_socket.IPPROTO_IP, _IP_FREEBIND, 1)
        for option in endpoint.options:
            found.setsockopt(*option)
        found.bind((endpoint.address, endpoint.port))
        if endpoint.kind == "tcp":
            found.listen(endpoint.backlog)
    except OSError as error:
        found.close()
        if error.errno == _EADDRINUSE:
            raise Busy(
                f"cannot listen on {endpoint}: another program does",
                hint=f"`ss -lnp 'sport = {endpoint.port}'` names it; `bind` names an address",
            ) from error
        raise ConfigError(f"cannot listen on {endpoint}: {error.strerror}") from error
    return found


def passed(fd: int) -> tuple[Key, _socket.socket] | None:
    """The socket that a service manager passed as fd, by the endpoint it fits; None: it is none."""
    try:
        found = _socket.socket(fileno=fd)
        name = found.getsockname()
    except OSError:
        return None
    os.set_inheritable(fd, False)
    kinds = {number: kind for kind, number in _STREAM.items()}
    kind = kinds.get(found.type)
    if kind is None or not isinstance(name, tuple) or not isinstance(name[0], str):
        found.detach()
        return None
    return (kind, name[0], name[1]), found
