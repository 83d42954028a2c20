"""Doer: connections of proxies whose header has not come whole yet; nobody else waits for them."""

import _socket

from virttools.serve import proxyprotocol
from virttools.serve.proxyprotocol import Header, ProxyError

SECONDS = 5.0
"""How long a header may take. A proxy sends it with its first packet."""

MOST = 1024


class Pending:
    """A connection to the target at that position of the board, and what has come of its header.

    local and remote: its ends as the socket has them; the header may name others.
    """

    __slots__ = ("_data", "connection", "deadline", "local", "position", "remote")

    def __init__(
        self,
        connection: _socket.socket,
        position: int,
        local: tuple[str, int],
        remote: tuple[str, int],
        now: float,
    ) -> None:
        self.connection = connection
        self.position = position
        self.local = local
        self.remote = remote
        self.deadline = now + SECONDS
        self._data = b""

    def read(self) -> Header | None:
        """The header, or None where more must come; never a byte behind it. Raises ProxyError."""
        while wanted := proxyprotocol.more(self._data):
            try:
                received = self.connection.recv(wanted, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError as error:
                raise ProxyError(f"no PROXY header: {error.strerror}") from error
            if not received:
                raise ProxyError("no PROXY header: the proxy has left")
            self._data += received
        return proxyprotocol.parse(self._data)


class Pendings:
    """All of them, by descriptor, the oldest first."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: dict[int, Pending] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, fd: int) -> bool:
        return fd in self._all

    def add(self, one: Pending) -> None:
        """Wait for a connection's header. Raises ProxyError where too many wait."""
        if len(self._all) >= MOST:
            raise ProxyError(f"more than {MOST} connections wait for their PROXY header")
        self._all[one.connection.fileno()] = one

    def get(self, fd: int) -> Pending:
        return self._all[fd]

    def remove(self, one: Pending) -> None:
        """It has its header, or was refused; its descriptor is still open."""
        del self._all[one.connection.fileno()]

    def due(self) -> float | None:
        """When the oldest has waited enough; None: none waits."""
        for one in self._all.values():
            return one.deadline
        return None

    def expired(self, now: float) -> list[Pending]:
        """Those that have waited enough, taken out."""
        over = []
        for one in self._all.values():
            if one.deadline > now:
                break
            over.append(one)
        for one in over:
            self.remove(one)
        return over
