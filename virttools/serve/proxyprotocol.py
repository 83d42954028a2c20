"""Values: the header a proxy sends before a connection's own bytes, PROXY protocol versions 1 and 2.

Strict, as the specification asks of a receiver; incremental; never asks for a byte past the header's end.
"""

import _socket

V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LONGEST_V1 = 107
LONGEST_V2 = 16 + 520
"""The longest v2 header taken: any addresses, and TLVs such as a TLS name; a receiver must take at least 232."""

_SHORTEST_V1 = {b"PROXY TCP4": 32, b"PROXY TCP6": 22}
_FAMILIES = {1: (_socket.AF_INET, 4), 2: (_socket.AF_INET6, 16)}
_HIGHEST_PORT = 65535


class ProxyError(ValueError):
    """Not a header, or one that is forbidden; the connection must be closed."""


class Header:
    """size: its bytes; source and destination: (address, port), or None where the proxy speaks for itself.

    Without addresses (UNKNOWN, LOCAL, or not internet) those of the socket count.
    """

    __slots__ = ("destination", "size", "source")

    def __init__(
        self,
        size: int,
        source: tuple[str, int] | None = None,
        destination: tuple[str, int] | None = None,
    ) -> None:
        self.size = size
        self.source = source
        self.destination = destination


def line(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """The header of a connection between two internet addresses of one family, version 1."""
    family = "TCP6" if ":" in source[0] else "TCP4"
    return f"PROXY {family} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def parse(data: bytes) -> Header | None:
    """The header that data begins with; None: more is needed. Raises ProxyError."""
    if V2_SIGNATURE.startswith(data[:12]):
        return _parse_v2(data) if len(data) >= 16 else None
    if not b"PROXY ".startswith(data[:6]):
        raise ProxyError("no PROXY header")
    return _parse_v1(data)


def more(data: bytes) -> int:
    """How many bytes may be read after data so that none past the header's end is taken; 0: it is whole.

    Raises ProxyError as `parse` does, so a stranger's first bytes are enough to refuse it.
    """
    if parse(data) is not None:
        return 0
    if data and V2_SIGNATURE.startswith(data[:12]):
        return _whole_v2(data) - len(data) if len(data) >= 16 else 16 - len(data)
    least = _SHORTEST_V1.get(data[:10], len(b"PROXY UNKNOWN\r\n"))
    if len(data) < least:
        return least - len(data)
    return 1 if data.endswith(b"\r") else 2


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            raise ProxyError(f"a PROXY line of more than {LONGEST_V1} bytes")
        _refuse_stray_line_end(data)
        return None
    words = data[:end].split(b" ")
    _refuse_stray_line_end(data[:end] + b"\r")
    if words[1] == b"UNKNOWN":
        return Header(end + 2)
    if words[1] not in (b"TCP4", b"TCP6") or len(words) != 6:
        raise ProxyError("not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT`")
    family = _socket.AF_INET if words[1] == b"TCP4" else _socket.AF_INET6
    source, destination = _address(family, words[2]), _address(family, words[3])
    return Header(end + 2, (source, _port(words[4])), (destination, _port(words[5])))


def _refuse_stray_line_end(line: bytes) -> None:
    """A CR only before LF, and LF only after CR, or the end of the header would be a matter of taste."""
    if b"\n" in line or b"\r" in line[:-1]:
        raise ProxyError("a PROXY line that does not end in CR LF")


def _address(family: int, word: bytes) -> str:
    try:
        return _socket.inet_ntop(family, _socket.inet_pton(family, word.decode("ascii")))
    except (OSError, ValueError):
        raise ProxyError("a PROXY line with a wrong address") from None


def _port(word: bytes) -> int:
    is_number = word.isdigit() and len(word) <= 5 and (word == b"0" or word[:1] != b"0")
    if not is_number or int(word) > _HIGHEST_PORT:
        raise ProxyError("a PROXY line with a wrong port")
    return int(word)


def _whole_v2(data: bytes) -> int:
    return 16 + int.from_bytes(data[14:16])


def _parse_v2(data: bytes) -> Header | None:
    size = _whole_v2(data)
    version, command = data[12] >> 4, data[12] & 15
    family, transport = data[13] >> 4, data[13] & 15
    if version != 2 or command > 1:
        raise ProxyError("a PROXY header of an unknown version or command")
    if family > 3 or transport > 2:
        raise ProxyError("a PROXY header of an unknown family")
    if size > LONGEST_V2:
        raise ProxyError(f"a PROXY header of more than {LONGEST_V2} bytes")
    kind, width = _FAMILIES.get(family, (0, 108 if family == 3 else 0))
    needed = 2 * width + (4 if kind else 0)
    if command == 1 and size - 16 < needed:
        raise ProxyError("a PROXY header too short for its addresses")
    if len(data) < size:
        return None
    if command == 0 or not kind:
        return Header(size)
    ports = 16 + 2 * width
    return Header(
        size,
        (_socket.inet_ntop(kind, data[16 : 16 + width]), int.from_bytes(data[ports : ports + 2])),
        (
            _socket.inet_ntop(kind, data[16 + width : ports]),
            int.from_bytes(data[ports + 2 : ports + 4]),
        ),
    )
