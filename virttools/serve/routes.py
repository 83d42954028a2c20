"""Values: a routes file of virtuald, `ADDRESS DIR` a line, as in the HOWTO; also `default DIR`."""

import _socket

from virttools.errors import ConfigError, Problem

_MAPPED = bytes(10) + b"\xff\xff"


class Routes:
    """Where connections go, by local address (packed); default None: others are refused.

    repeated: lines that can never match, because an earlier one has the same address.
    """

    __slots__ = ("default", "folders", "repeated")

    def __init__(self) -> None:
        self.folders: dict[bytes, str] = {}
        self.default: str | None = None
        self.repeated: list[Problem] = []

    def find(self, address: bytes) -> str | None:
        """The folder for a packed address; `default`, wherever it stands, if no line has it."""
        return self.folders.get(address, self.default)


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


def parse(text: str, file: str) -> Routes:
    """Read a routes file.

    Raises ConfigError with every wrong line: what is mistyped must not fall to `default`.
    """
    routes = Routes()
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split(None, 1)
        if words and not words[0].startswith("#"):
            fault = _add(
                routes, words, Problem(file, number, "address again: an earlier line serves it")
            )
            if fault:
                problems.append(Problem(file, number, fault))
    if problems:
        raise ConfigError(
            f"cannot read the routes in {file}",
            problems=tuple(problems),
            hint="a line is `ADDRESS DIR` or `default DIR`; # begins a comment line",
        )
    return routes


def _add(routes: Routes, words: list[str], repeated: Problem) -> str | None:
    address, folder = words[0], words[1].strip() if len(words) > 1 else ""
    if not folder:
        return f"no folder after {address!r}"
    if not folder.startswith("/") or "\0" in folder:
        return f"not an absolute path: {folder!r}"
    if address == "default":
        if routes.default is not None:
            routes.repeated.append(repeated)
        routes.default = routes.default or folder
        return None
    packed = pack(address)
    if packed is None:
        return f"not an address: {address!r}"
    if packed in routes.folders:
        routes.repeated.append(repeated)
    routes.folders.setdefault(packed, folder)
    return None
