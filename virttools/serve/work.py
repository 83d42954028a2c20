"""Values: what the supervisor hands over to a spawner."""

import _socket

from virttools.serve.board import Board, Endpoint
from virttools.serve.journal import Journal
from virttools.serve.ledger import Ledger
from virttools.serve.namespaces import Home


class Work:
    """What the supervisor hands over. rows, namespaces: by position of the target on the board.

    sockets: (endpoint, listening socket); namespaces: descriptor numbers in /proc/SUPERVISOR/fd.
    """

    __slots__ = (
        "board", "control", "descriptors_fd", "home", "journal", "ledger", "namespaces", "rows",
        "runs_jobs", "sockets",
    )  # fmt: skip

    def __init__(
        self,
        board: Board,
        sockets: list[tuple[Endpoint, _socket.socket]],
        *,
        rows: list[int],
        namespaces: list[tuple[int, ...]],
        counts: Ledger,
        journal: Journal,
        home: Home,
        descriptors_fd: int,
        control: _socket.socket,
        runs_jobs: bool,
    ) -> None:
        self.runs_jobs = runs_jobs
        self.board = board
        self.sockets = sockets
        self.rows = rows
        self.namespaces = namespaces
        self.ledger = counts
        self.journal = journal
        self.home = home
        self.descriptors_fd = descriptors_fd
        self.control = control
