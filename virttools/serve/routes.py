"""Values: a routes file of virtuald: `ADDRESS DIR` a line, as in the HOWTO, and what came after it.

ADDRESS is also ADDRESS:PORT, [IPV6]:PORT, a network, or `default`. The first line that fits counts.
"""

import _socket

from virttools.errors import ConfigError, Problem

_MAPPED = bytes(10) + b"\xff\xff"
_HINT = "a line is `ADDRESS DIR`, `ADDRESS:PORT DIR`, `NETWORK/BITS DIR` or `default DIR`"


class Route:
    """One line: the connections to `port` (0: any) of a network of addresses go to a folder."""

    __slots__ = ("_head", "_width", "folder", "is_network", "line", "packed", "port", "shift")

    def __init__(self, packed: bytes, bits: int, port: int, folder: str, line: int) -> None:
        self.packed = packed
        self.port = port
        self.folder = folder
        self.line = line
        self._width = len(packed)
        self.shift = 8 * len(packed) - bits
        self.is_network = self.shift > 0
        self._head = int.from_bytes(packed, "big") >> self.shift if self.is_network else 0

    def fits(self, packed: bytes, port: int) -> bool:
        """Whether a connection to that address and port takes this route."""
        if self.port not in (0, port) or len(packed) != self._width:
            return False
        if not self.is_network:
            return packed == self.packed
        return int.from_bytes(packed, "big") >> self.shift == self._head

    def hides(self, later: "Route") -> bool:
        """Whether a later line can never count, since this one takes all that is its own."""
        return self.shift >= later.shift and self.fits(later.packed, later.port)


class Routes:
    """Where connections go, by local address and port; default None: others are refused."""

    __slots__ = ("_exact", "_networks", "default", "file", "repeated_defaults", "routes")

    def __init__(self, file: str) -> None:
        self.file = file
        self.routes: list[Route] = []
        self.default: str | None = None
        self.repeated_defaults: list[int] = []
        self._exact: dict[tuple[bytes, int], Route] = {}
        self._networks: list[Route] = []

    def add(self, route: Route) -> None:
        """Add a line below those that are there."""
        self.routes.append(route)
        if route.is_network:
            self._networks.append(route)
        else:
            self._exact.setdefault((route.packed, route.port), route)

    def find(self, packed: bytes, port: int = 0) -> str | None:
        """The folder for a packed address and a port; `default`, wherever it stands, if no line fits."""
        best = self._exact.get((packed, 0))
        ported = self._exact.get((packed, port))
        if ported is not None and (best is None or ported.line < best.line):
            best = ported
        for network in self._networks:
            if best is not None and best.line < network.line:
                break
            if network.fits(packed, port):
                best = network
        return self.default if best is None else best.folder

    def folders(self) -> list[str]:
        """Every folder that a line names, sorted."""
        named = {route.folder for route in self.routes}
        return sorted(named if self.default is None else named | {self.default})

    def hidden(self) -> list[Problem]:
        """The lines that can never count, because an earlier one takes what they would."""
        found = [(line, "the default: an earlier line is") for line in self.repeated_defaults]
        for route in self.routes:
            exact = [self._exact.get((route.packed, port)) for port in (0, route.port)]
            takers = [taker for taker in (*exact, *self._networks) if taker is not None]
            lines = [one.line for one in takers if one.line < route.line and one.hides(route)]
            if lines:
                found.append((route.line, f"reached: line {min(lines)} serves it"))
        return [Problem(self.file, line, f"never {what}") for line, what in sorted(found)]


def pack(text: str) -> bytes | None:
    """An IPv4 or IPv6 address in network order, IPv4-mapped IPv6 as IPv4; None where it is none."""
    try:
        return _socket.inet_pton(_socket.AF_INET, text)
    except (OSError, ValueError):
        pass
    try:
        packed = _socket.inet_pton(_socket.AF_INET6, text)
    except (OSError, ValueError):
        return None
    return packed.removeprefix(_MAPPED)


def endpoint(text: str) -> tuple[bytes, int] | None:
    """ADDRESS, ADDRESS:PORT or [IPV6]:PORT as packed address and port (0: none); None: it is none."""
    address, port = _split(text)
    packed = pack(address)
    number = _number(port, 65535) if port else 0
    return None if packed is None or number is None else (packed, number)


def parse(text: str, file: str) -> Routes:
    """Read a routes file.

    Raises ConfigError with every wrong line: what is mistyped must not fall to `default`.
    """
    routes = Routes(file)
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split(None, 1)
        if words and not words[0].startswith("#"):
            fault = _add(routes, words[0], words[1].strip() if len(words) > 1 else "", number)
            if fault:
                problems.append(Problem(file, number, fault))
    if problems:
        raise ConfigError(
            f"cannot read the routes in {file}",
            problems=tuple(problems),
            hint=f"{_HINT}; # begins a comment line",
        )
    return routes


def _add(routes: Routes, place: str, folder: str, line: int) -> str | None:
    if not folder:
        return f"no folder after {place!r}"
    if not folder.startswith("/") or "\0" in folder:
        return f"not an absolute path: {folder!r}"
    if place == "default":
        if routes.default is not None:
            routes.repeated_defaults.append(line)
        routes.default = routes.default or folder
        return None
    try:  # of a thousand lines of most files nearly all are so
        routes.add(Route(_socket.inet_pton(_socket.AF_INET, place), 32, 0, folder, line))
    except (OSError, ValueError):
        found = _network(place)
        if isinstance(found, str):
            return found
        routes.add(Route(*found, folder, line))
    return None


def _network(place: str) -> tuple[bytes, int, int] | str:
    """Address, bits of the mask and port of a place; or what is wrong with it."""
    text, port = _split(place)
    address, slash, mask = text.partition("/")
    packed = pack(address)
    number = _number(port, 65535) if port else 0
    if packed is None:
        return f"not an address: {place!r}"
    if number is None:
        return f"not a port: {place!r}"
    width = 8 * len(packed)
    if not slash:
        return packed, width, number
    bits = _number(mask, 128, 0)
    if bits is not None and len(packed) == 4 and ":" in address:
        bits -= 96  # the mask of an IPv4-mapped network
    if bits is None or not 0 <= bits <= width:
        return f"not a mask of 0 to {width} bits: {place!r}"
    if int.from_bytes(packed, "big") & ((1 << width - bits) - 1):
        return f"it has bits beyond its mask: {place!r}"
    return packed, bits, number


def _split(place: str) -> tuple[str, str]:
    """Address (or network) and port, "" for none; of IPv6 a port needs brackets."""
    if place.startswith("["):
        address, bracket, rest = place[1:].partition("]")
        if bracket and not rest:
            return address, ""
        return (address, rest[1:]) if len(rest) > 1 and rest[0] == ":" else (place, "")
    address, colon, port = place.partition(":")
    if not colon or ":" in port:
        return place, ""
    return (address, port) if port else (place, "")


def _number(text: str, highest: int, lowest: int = 1) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return int(text) if lowest <= int(text) <= highest else None
