"""Doer: the services that inetd has inside (inetd(8)), as a program of its own: `python3 -I -S internal.py echo`.

Descriptor 0 is the connection, or of a datagram service the socket. It runs as nobody.
"""

import _socket
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NOBODY = 65534
_EPOCH = 2_208_988_800  # seconds from 1900, as RFC 868 counts, to 1970
_RING = bytes(range(32, 127))
_WIDTH = 72
_LINGER = 2.0
_NFS = 2049
_FIRST_FREE_PORT = 1024


def command(service: str) -> tuple[str, ...]:
    """The argument list that serves an internal service of inetd.conf."""
    return (sys.executable, "-I", "-S", __file__, service)


def main(argv: list[str]) -> int:
    """Serve what descriptor 0 is; argv: the service. Status 2 where there is none of that name."""
    connection = _socket.socket(fileno=0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    is_stream = connection.type == _socket.SOCK_STREAM
    serve = (_STREAMS if is_stream else _DATAGRAMS).get(argv[1] if len(argv) == 2 else "")
    if serve is None:
        return 2
    try:
        if is_stream:
            _STREAMS[argv[1]](connection)
        else:
            _answer_all(connection, argv[1])
    except OSError:
        pass  # the client has left
    return 0


def _echo(connection: _socket.socket) -> None:
    while received := connection.recv(65536):
        connection.sendall(received)


def _discard(connection: _socket.socket) -> None:
    while connection.recv(65536):
        pass


def _daytime(connection: _socket.socket) -> None:
    connection.sendall(_now_in_words(b""))


def _time(connection: _socket.socket) -> None:
    connection.sendall(_now(b""))


def _chargen(connection: _socket.socket) -> None:
    page = b"".join(map(_line, range(len(_RING))))
    while True:
        connection.sendall(page)


def _line(start: int) -> bytes:
    """The characters from start on, over the end of the ring, as RFC 864 shows them."""
    return (_RING * 2)[start : start + _WIDTH] + b"\r\n"


def _now_in_words(_received: bytes) -> bytes:
    return time.ctime().encode() + b"\r\n"


def _now(_received: bytes) -> bytes:
    return (int(time.time()) + _EPOCH & 0xFFFFFFFF).to_bytes(4)


def _answer_all(socket: _socket.socket, service: str) -> None:
    """Answer datagrams until none comes for a while: the next one has the server start us anew."""
    answer = _DATAGRAMS[service]
    socket.settimeout(_LINGER)
    while True:
        received, sender = socket.recvfrom(65536)
        reply = answer(received)
        if reply and not is_suspicious(sender[0], sender[1]):
            socket.sendto(reply, sender)


def is_suspicious(address: str, port: int) -> bool:
    """Whether to answer a datagram may start two services talking for ever, or many machines at once."""
    if port < _FIRST_FREE_PORT or port == _NFS:
        return True
    if ":" in address:
        packed = _socket.inet_pton(_socket.AF_INET6, address.partition("%")[0])
        is_mapped = packed[:12] == bytes(10) + b"\xff\xff"
        return packed[0] == 0xFF or is_mapped or not any(packed)  # ff00::/8 is multicast
    first = int(address.partition(".")[0])
    return first in (0, 127, 255) or first >> 4 == 0xE  # 224.0.0.0/4, multicast


_STREAMS: "dict[str, Callable[[_socket.socket], None]]" = {
    "echo": _echo,
    "discard": _discard,
    "daytime": _daytime,
    "time": _time,
    "chargen": _chargen,
}
_DATAGRAMS: "dict[str, Callable[[bytes], bytes]]" = {
    "echo": bytes,
    "discard": lambda _received: b"",
    "daytime": _now_in_words,
    "time": _now,
    "chargen": lambda _received: _line(0),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv))
