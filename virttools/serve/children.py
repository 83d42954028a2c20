"""Doer: starts the spawners, hears what they say, and buries them."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import os
import select
import time

from virttools import linux
from virttools.serve import spawner
from virttools.serve.board import Board, Endpoint
from virttools.serve.holdings import Holdings
from virttools.serve.journal import ERROR
from virttools.serve.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGINT, _signal.SIGUSR2, _signal.SIGCHLD)
REPLACE = 0  # no signal: a spawner has died
CHANGED = -1  # nor is this: domains came, changed or went
_LOOK_SECONDS, _STALE_SECONDS = 0.5, 5.0
_FOLDER = os.O_PATH | os.O_DIRECTORY


class Child:
    """A spawner: its end of the control socket, and what it has said so far.

    board: what it relies on until it has stopped; None: what a predecessor of ours had.
    """

    __slots__ = (
        "board",
        "control",
        "is_draining",
        "is_ready",
        "is_silent",
        "is_stopped",
        "is_waiting",
        "pid",
    )

    def __init__(self, pid: int, control: _socket.socket, *, is_waiting: bool) -> None:
        self.pid = pid
        self.control = control
        self.is_waiting = is_waiting
        self.board: Board | None = None
        self.is_ready = False
        self.is_silent = False
        self.is_stopped = False
        self.is_draining = False


class Children:
    """All spawners, by pid. ask: told REPLACE or CHANGED, when something calls for it.

    has_freed: one of them relies on its board no more, so `release` may have something to close.
    """

    def __init__(self, held: Holdings, poll: select.poll, ask: "Callable[[int], None]") -> None:
        self._held = held
        self._poll = poll
        self._ask = ask
        self._pid_fd = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._stale_at: dict[str, float] = {}
        self.has_freed = False
        self.all: dict[int, Child] = {}

    def serving(self) -> list[Child]:
        """Those that take connections, or soon will."""
        return [child for child in self.all.values() if not child.is_draining]

    def draining(self) -> int:
        """How many are of sets before this one, and serve what they have."""
        return sum(child.is_draining for child in self.all.values())

    def by_control(self) -> dict[int, Child]:
        return {child.control.fileno(): child for child in self.all.values()}

    def start_all(self, cores: int) -> list[Child]:
        """Start what the board needs."""
        board = self._held.board
        shared = [endpoint for endpoint in board.endpoints if not endpoint.is_wait]
        alone = [endpoint for endpoint in board.endpoints if endpoint.is_wait]
        rows = self._held.assign()
        started = [self._start(shared, rows) for _ in range(cores if shared else 0)]
        if alone or any(target.every for target in board.targets):
            started.append(self._start(alone, rows, is_waiting=True))
        return started

    def add(self, pid: int, control: _socket.socket, *, is_waiting: bool) -> Child:
        child = self.all[pid] = Child(pid, control, is_waiting=is_waiting)
        self._poll.register(control.fileno(), select.POLLIN)
        return child

    def _start(
        self, endpoints: list[Endpoint], rows: list[int], *, is_waiting: bool = False
    ) -> Child:
        ours, theirs = _socket.socketpair(
            _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        )
        supervisor = os.getpid()
        linux.unshare(linux.CLONE_NEWPID)
        try:
            pid = os.fork()
        finally:
            if os.getpid() == supervisor:
                linux.setns(self._pid_fd, linux.CLONE_NEWPID)
        if pid == 0:
            self._become_spawner(endpoints, rows, theirs, supervisor, is_waiting=is_waiting)
        theirs.close()
        child = self.add(pid, _socket.socket(fileno=ours.detach()), is_waiting=is_waiting)
        child.board = self._held.board
        return child

    def _become_spawner(
        self,
        endpoints: list[Endpoint],
        rows: list[int],
        control: _socket.socket,
        supervisor: int,
        *,
        is_waiting: bool,
    ) -> None:
        try:
            for number in SIGNALS:
                _signal.signal(number, _signal.SIG_DFL)
            folder_fd = os.open(f"/proc/{supervisor}/fd", _FOLDER)
            sockets = [(endpoint, self._held.sockets[endpoint.key()]) for endpoint in endpoints]
            home = self._held.home
            kept = [
                control.fileno(),
                folder_fd,
                self._held.journal.fd,
                self._held.ledger.fd,
                self._held.ledger.map_fd,
            ]
            kept += [home.mount_fd, home.uts_fd, home.ipc_fd, home.root_fd]
            kept += [socket.fileno() for _, socket in sockets]
            _close_others(kept)
            self._held.give_room_back(len(kept))
            work = self._work(sockets, rows, control, folder_fd, runs_jobs=is_waiting)
            spawner.run(work)
        finally:
            os._exit(70)

    def _work(
        self,
        sockets: list[tuple[Endpoint, _socket.socket]],
        rows: list[int],
        control: _socket.socket,
        folder_fd: int,
        *,
        runs_jobs: bool,
    ) -> Work:
        return Work(
            self._held.board,
            sockets,
            rows=rows,
            namespaces=[
                self._held.namespaces.get(target.place.key(), ())
                for target in self._held.board.targets
            ],
            counts=self._held.ledger,
            journal=self._held.journal,
            home=self._held.home,
            descriptors_fd=folder_fd,
            control=control,
            runs_jobs=runs_jobs,
        )

    def drain(self, child: Child) -> None:
        child.is_draining = True
        _tell(child, b"drain")

    def hear(self, child: Child) -> None:
        try:
            word = child.control.recv(4096, _socket.MSG_DONTWAIT)
        except OSError:
            return
        if not word:
            child.is_silent = True
            self._poll.unregister(child.control.fileno())
        elif word == b"ready":
            child.is_ready = True
        elif word == b"stopped":
            child.is_stopped, child.board = True, None
            self.has_freed = True
        elif word == b"free":
            for other in self.all.values():
                if other.is_waiting and not other.is_draining:
                    _tell(other, b"free")
        elif word.startswith(b"stale "):
            self._look_at(word[6:].decode("utf-8", "replace"))

    def _look_at(self, domain: str) -> None:
        """A program was not there: reload if the tree is another than the one its namespace was built of."""
        now = time.monotonic()
        if now < self._stale_at.get(domain, 0.0):
            return
        self._stale_at[domain] = now + _LOOK_SECONDS
        for target in self._held.board.targets:
            place = target.place
            if place.domain == domain and place.isolation == "namespace":
                try:
                    found = os.lstat(place.folder)
                except OSError:
                    continue
                if (found.st_dev, found.st_ino) != place.identity:
                    self._stale_at[domain] = now + _STALE_SECONDS
                    self._ask(CHANGED)
                    return

    def look(self) -> None:
        """Reload if a tree was moved away: whole as it is, no program of it is missed."""
        places = {target.place.folder: target.place for target in self._held.board.targets}
        for place in places.values():
            if place.isolation == "namespace" and not os.path.lexists(place.folder):
                self._ask(CHANGED)
                return

    def release(self) -> None:
        """Close what the board needs no more, unless a spawner of another one still relies on it.

        One that serves on because those that are to replace it are not ready is such a one, too.
        """
        self.has_freed = False
        board = self._held.board
        if all(one.is_stopped or one.board is board for one in self.all.values()):
            self._held.close_unused()

    def reap(self, bury_other: "Callable[[int], object]") -> None:
        """Bury what has ended; who is none of ours is somebody else's."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.all.pop(pid, None)
            if child is None:
                bury_other(pid)
                continue
            self._forget(child)
            self.has_freed = True
            status = os.waitstatus_to_exitcode(status)
            if child.is_ready and (
                status or not child.is_draining
            ):  # what it counted stays counted
                self._held.journal.write(
                    ERROR, f"a spawner ended with status {status}: starting anew"
                )
                self._ask(REPLACE)

    def _forget(self, child: Child) -> None:
        if not child.is_silent:
            self._poll.unregister(child.control.fileno())
        child.control.close()


def _tell(child: Child, word: bytes) -> None:
    try:
        child.control.send(word, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        return  # it is gone, and will be reaped


def _close_others(kept: list[int]) -> None:
    start = 3
    for fd in sorted(fd for fd in kept if fd >= 3):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 1 << 20)
