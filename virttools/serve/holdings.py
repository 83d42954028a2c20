"""Doer: what the supervisor keeps for its spawners and for a successor: the board, listeners, namespaces, counts."""

import _socket
import os
import resource

from virttools import linux
from virttools.errors import Busy, VirtError
from virttools.serve import listening
from virttools.serve.board import Board, Endpoint
from virttools.serve.journal import ERROR, WARNING, Journal
from virttools.serve.ledger import Ledger, Rows
from virttools.serve.loading import Key, Loaded
from virttools.serve.messages import counted
from virttools.serve.namespaces import Home
from virttools.serve.notify import listen_fds


class Holdings:
    """namespaces: descriptors of the mount, uts and ipc namespace of each place that has them.

    files: RLIMIT_NOFILE as it was for us at first, and is for what we start. shut: sockets that the
    last `take` had in its way; spawners of before have them, too. passed: those that are a service
    manager's, which are never shut or closed: it listens as long as it likes.
    """

    __slots__ = (
        "board", "files", "home", "journal", "ledger", "namespaces", "passed", "rows", "shut",
        "sockets",
    )  # fmt: skip

    ledger: Ledger

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.home = Home()
        self.board = Board()
        self.rows = Rows()
        self.sockets: dict[listening.Key, _socket.socket] = {}
        self.shut: dict[listening.Key, _socket.socket] = {}
        self.passed: set[listening.Key] = set()
        self.namespaces: dict[Key, tuple[int, ...]] = {}
        self.files = resource.getrlimit(resource.RLIMIT_NOFILE)

    def make_room(self) -> None:
        """Let this process have all the descriptors it may: each domain needs three, and 1024 are usual."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def give_room_back(self, kept: int = 0) -> None:
        """In a process of ours that starts programs. kept: descriptors that it holds, and as many may come."""
        soft, hard = self.files
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * kept)), hard))

    def begin(self) -> None:
        """Start with no counts, and the sockets that a service manager passed."""
        self.ledger = Ledger()
        try:
            told = listen_fds(os.environ, os.getpid())
        except ValueError as error:
            self.journal.write(WARNING, str(error))
            told = []
        linux.close_range_cloexec(3)
        for fd, name in told:
            found = listening.passed(fd)
            if found is None:
                self.journal.write(WARNING, f"descriptor {fd} ({name}) is no socket to listen on")
            else:
                self.sockets[found[0]] = found[1]
                self.passed.add(found[0])

    def take(self, loaded: Loaded) -> Board:
        """Listen for a new board, and keep it; the old one. Raises VirtError, and has changed nothing then."""
        opened: dict[listening.Key, _socket.socket] = {}
        endpoints, before = _by_key(loaded.board), _by_key(self.board)
        unwanted = {key: self.sockets[key] for key in self.sockets if key not in endpoints}
        shut: list[listening.Key] = []
        try:
            for key, endpoint in endpoints.items():
                if key not in self.sockets:
                    opened[key] = self._listen(endpoint, unwanted, shut)
        except VirtError:
            for socket in opened.values():
                socket.close()
            for key in shut:
                self._listen_again(before.get(key) or Endpoint(*key))
            loaded.drop()
            raise
        for key, endpoint in endpoints.items():
            if key in before and before[key].backlog != endpoint.backlog and key in self.sockets:
                self._listen_again(endpoint)
        self.namespaces.update(loaded.namespaces)
        self.sockets.update(opened)
        self._close_shut()
        self.shut = {key: self.sockets.pop(key) for key in shut}
        for key in self.passed - endpoints.keys():
            text = f"the service manager listens on {Endpoint(*key)}, where nothing is served"
            self.journal.write(WARNING, text)
        previous, self.board = self.board, loaded.board
        return previous

    def _listen(
        self,
        endpoint: Endpoint,
        unwanted: dict[listening.Key, _socket.socket],
        shut: list[listening.Key],
    ) -> _socket.socket:
        """Listen, and where a socket of ours that nobody wants any more is in the way, shut it first.

        That of all addresses and that of one are in each other's way. Spawners have the socket, too:
        only to shut it ends it for all, for a service manager as well. Raises VirtError.
        """
        try:
            return listening.listen(endpoint)
        except Busy as error:
            found = [key for key in unwanted if _is_in_the_way(key, endpoint) and key not in shut]
            for key in found:
                if key in self.passed:
                    raise Busy(
                        f"cannot listen on {endpoint}: the service manager does, on {Endpoint(*key)}",
                        hint="have its socket unit listen where the services do",
                    ) from error
            if not found:
                raise
        for key in found:
            unwanted[key].shutdown(_socket.SHUT_RD)
            shut.append(key)
        return listening.listen(endpoint)

    def _listen_again(self, endpoint: Endpoint) -> None:
        """Have a socket of ours listen, with what may wait in its queue now."""
        key = endpoint.key()
        if endpoint.kind != "tcp" or key in self.passed:
            return
        try:
            self.sockets[key].listen(endpoint.backlog)
        except OSError as error:
            self.journal.write(ERROR, f"cannot listen on {endpoint}: {error.strerror}")

    def go_back(self, before: Board) -> None:
        """Keep the board that `take` gave back: its spawners, which serve on, listen as before."""
        wanted = {endpoint.key() for endpoint in before.endpoints}
        for endpoint in before.endpoints:
            socket = self.shut.pop(endpoint.key(), None)
            if socket is None:
                continue
            for key in [key for key in self.sockets if key not in wanted]:
                if _is_in_the_way(key, endpoint) and key not in self.passed:
                    self.sockets[key].shutdown(_socket.SHUT_RD)
                    self.sockets.pop(key).close()
            self.sockets[endpoint.key()] = socket
            self._listen_again(endpoint)
        self.board = before

    def _close_shut(self) -> None:
        for socket in self.shut.values():
            socket.close()
        self.shut.clear()

    def close_unused(self) -> None:
        """Close what the board needs no more. Nobody may rely on the one before it:
        the number of a namespace that is closed may become another domain's.
        """
        self._close_shut()
        wanted = {endpoint.key() for endpoint in self.board.endpoints}
        for key in [key for key in self.sockets if key not in wanted and key not in self.passed]:
            self.sockets.pop(key).close()
        places = {target.place.key() for target in self.board.targets}
        for place in [place for place in self.namespaces if place not in places]:
            for fd in self.namespaces.pop(place):
                os.close(fd)

    def assign(self) -> list[int]:
        """A row for each target, and the last one for what belongs to none."""
        names = [target.name for target in self.board.targets]
        return self.rows.assign(self.ledger, [*names, ""])

    def renew_ledger(self) -> None:
        """Keep the counts, but of nothing live."""
        fresh = Ledger()
        for number in self.rows.numbers.values():
            fresh.take(number, self.ledger)
        fresh.add_lost(self.ledger.lost())
        self.ledger.close()
        self.ledger = fresh

    def descriptors(self) -> list[int]:
        """All that a successor needs open."""
        fds = [self.ledger.fd, *(socket.fileno() for socket in self.sockets.values())]
        return fds + [fd for each in self.namespaces.values() for fd in each]

    def __str__(self) -> str:
        domains = {target.place.domain for target in self.board.targets if target.place.domain}
        found = [counted(len(self.board.endpoints), "endpoint"), counted(len(domains), "domain")]
        if self.board.daemons:
            found.append(counted(len(self.board.daemons), "daemon"))
        return ", ".join(found)


def _by_key(board: Board) -> dict[listening.Key, Endpoint]:
    return {endpoint.key(): endpoint for endpoint in board.endpoints}


def _is_in_the_way(key: listening.Key, endpoint: Endpoint) -> bool:
    kind, address, port = key
    is_alike = (":" in address) == (":" in endpoint.address)
    return (kind, port, is_alike) == ("tcp", endpoint.port, True) and endpoint.kind == "tcp"
