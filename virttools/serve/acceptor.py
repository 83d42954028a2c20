"""Doer: the thread of a spawner that accepts connections, admits them, and starts their programs."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import _thread
import os
import select
import time
from heapq import heappush

from virttools.serve import launch, ledger, messages, worker
from virttools.serve.admission import PROXY, Bursts, Gate, Limits, Networks
from virttools.serve.board import Board, Endpoint, Finder, Target
from virttools.serve.journal import ERROR, NOTICE, Journal
from virttools.serve.ledger import Ledger
from virttools.serve.live import Connection
from virttools.serve.namespaces import Home, Way
from virttools.serve.proxied import Pending, Pendings
from virttools.serve.proxyprotocol import ProxyError
from virttools.serve.schedule import Job, Schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from virttools.serve.worker import Handle

STOP, NUDGE = b".", b"n"
_ROUTE = "no_route"
_NO_ROOM = "no_room"
_FULL = (23, 24)  # ENFILE, EMFILE
_PAUSE = 0.05


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
        namespaces: list[tuple[str, str]],
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


class Acceptor:
    """`_lock` guards what both threads change: `_live`, `_workers`, `_bursts`, the ledger's file lock."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._ledger = work.ledger
        self._journal = work.journal
        self._targets = work.board.targets
        self._lock = _thread.allocate_lock()
        self._live: dict[int, Connection] = {}
        self._handed: dict[int, Connection] = {}
        self._numbers = 0
        self._workers: dict[str, Handle] = {}
        self._bursts: dict[tuple[str, str], Bursts] = {}
        self._deadlines: list[tuple[float, int, Connection]] = []
        self._rearm: list[tuple[float, int]] = []
        self._starts: dict[int, list[float]] = {}
        self._gates = _gates(self._targets)
        self._pendings = Pendings()
        self._proxies = {
            at: Networks(target.proxies)
            for at, target in enumerate(self._targets)
            if target.proxies
        }
        self._listeners = {
            socket.fileno(): (endpoint, socket, Finder(endpoint))
            for endpoint, socket in work.sockets
        }
        self._epoll = select.epoll()
        self._stop_fd, self._stop_write_fd = os.pipe2(os.O_CLOEXEC)
        self._wake_fd, self._wake_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._spare_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._is_draining = False
        self._has_stopped = False
        self._schedule = Schedule()
        self._following: list[Job] = []
        self._way: Way | None = None
        self._poll = select.poll()

    def _accept_all(self) -> None:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, launch.SIGNALS)
        try:
            self._way = Way(self._work.home, self._work.descriptors_fd)
            self._open()
            while self._serve_ready():
                pass
            self._shut()
            self._say(b"stopped")
            self._has_stopped = True
            os.write(self._wake_write_fd, b".")
        except BaseException as error:  # noqa: BLE001  without this thread the process is of no use
            self._journal.write(ERROR, f"internal error: {type(error).__name__}: {error}")
            os._exit(70)

    def _open(self) -> None:
        self._epoll.register(self._stop_fd, select.EPOLLIN)
        for fd, (endpoint, socket, _) in self._listeners.items():
            if endpoint.is_wait:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
            else:
                socket.setblocking(False)
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._plan_jobs()
        self._say(b"ready")

    def _shut(self) -> None:
        """Take no more, but all that a wake-up of ours may stand for: nobody else was woken for it."""
        for fd, (endpoint, _, _) in self._listeners.items():
            self._epoll.unregister(fd)
            while not endpoint.is_wait and self._accept(fd):
                pass
        while len(self._pendings):
            for fd, _ in self._epoll.poll(self._until_due()):
                if fd in self._pendings:
                    self._read_header(self._pendings.get(fd))
                else:
                    self._epoll.unregister(fd)  # told to stop, which we do
            self._refuse_late()

    def _serve_ready(self) -> bool:
        """Serve what is ready, or due; False where it is time to stop."""
        is_open = True
        for fd, _ in self._epoll.poll(self._until_due()):
            if fd == self._stop_fd:
                is_open = STOP not in os.read(fd, 4096)
            elif fd in self._pendings:
                self._read_header(self._pendings.get(fd))
            elif self._listeners[fd][0].is_wait:
                self._serve_wait(fd)
            else:
                self._accept(fd)
        self._refuse_late()
        if is_open and self._work.runs_jobs:
            self._run_jobs()
        return is_open

    def _until_due(self) -> float | None:
        """Seconds until a command or the patience with a proxy is due; None: nothing is."""
        due = None if self._is_draining else self._schedule.next_due()
        late = self._pendings.due()
        waits = [] if due is None else [due - _now()]
        if late is not None:
            waits.append(late - time.monotonic())
        return max(0.0, min(waits)) if waits else None

    def _accept(self, fd: int) -> bool:
        """Serve one connection; whether there was one."""
        endpoint, listener, finder = self._listeners[fd]
        try:
            connection_fd, peer = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001  no enum look-ups
        except BlockingIOError:
            return False
        except OSError as error:
            self._make_room(listener, error)
            return True
        connection = _socket.socket(listener.family, _socket.SOCK_STREAM, 0, connection_fd)
        try:
            self._answer(endpoint, finder, connection, peer)
        finally:
            connection.close()
        return True

    def _answer(
        self,
        endpoint: Endpoint,
        finder: Finder,
        connection: _socket.socket,
        peer: tuple[str, int],
    ) -> None:
        local = connection.getsockname()[0]
        source = peer[0]
        if local[:7] == "::ffff:" and "." in local:
            local, source = local[7:], source[7:]
        position = finder.find(local)
        now = time.monotonic()
        if position is None:
            with self._lock:
                self._ledger.lock()
                self._ledger.add(self._work.rows[-1], ledger.FAILED)
                self._ledger.unlock()
                self._tell_refusal(None, f"{_ROUTE} {local}", source, now)
            return
        trusted = self._proxies.get(position)
        if trusted is not None and trusted.has(source):
            self._await_header(connection, position, (local, endpoint.port), (source, peer[1]))
            return
        self._admit(connection, position, (local, endpoint.port), (source, peer[1]))

    def _admit(
        self,
        connection: _socket.socket,
        position: int,
        local: tuple[str, int],
        remote: tuple[str, int],
    ) -> None:
        target, source, now = self._targets[position], remote[0], time.monotonic()
        gate = self._gates.get(position)
        reason = None if gate is None else gate.refusal(source)
        with self._lock:
            slot = ledger.NO_SLOT
            self._ledger.lock()
            try:
                if reason is not None:
                    self._ledger.refuse(self._work.rows[position], reason)
                else:
                    row = self._work.rows[position]
                    reason, slot = self._ledger.admit(row, target.limits, source, now)
            finally:
                self._ledger.unlock()
            if reason is not None:
                self._tell_refusal(target, reason, source, now)
                return
            if target.banner:
                _send(connection, target.banner)
            one = Connection(target, position, source, now)
            one.slot = slot
            env = {
                **target.env,
                b"PROTO": b"TCP",
                b"TCPLOCALIP": local[0].encode(),
                b"TCPLOCALPORT": b"%d" % local[1],
                b"TCPREMOTEIP": source.encode(),
                b"TCPREMOTEPORT": b"%d" % remote[1],
            }
            self._begin(one, env, connection.fileno())

    # ---- proxies, whose header is waited for beside all else

    def _await_header(
        self,
        connection: _socket.socket,
        position: int,
        local: tuple[str, int],
        remote: tuple[str, int],
    ) -> None:
        try:
            one = self._start_waiting(connection, position, local, remote)
        except (OSError, ProxyError):  # too many wait, or no descriptor is left
            self._refuse_header(position, remote[0])
        else:
            self._read_header(one)

    def _start_waiting(
        self,
        connection: _socket.socket,
        position: int,
        local: tuple[str, int],
        remote: tuple[str, int],
    ) -> Pending:
        fd = _socket.dup(connection.fileno())
        own = _socket.socket(connection.family, _socket.SOCK_STREAM, 0, fd)
        one = Pending(own, position, local, remote, time.monotonic())
        try:
            self._pendings.add(one)
        except ProxyError:
            own.close()
            raise
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            self._pendings.remove(one)
            own.close()
            raise
        return one

    def _read_header(self, one: Pending) -> None:
        try:
            header = one.read()
        except ProxyError:
            self._pendings.remove(one)
            self._stop_waiting(one)
            self._refuse_header(one.position, one.remote[0])
            return
        if header is None:
            return
        self._pendings.remove(one)
        try:
            local, remote = header.destination or one.local, header.source or one.remote
            self._admit(one.connection, one.position, local, remote)
        finally:
            self._stop_waiting(one)

    def _stop_waiting(self, one: Pending) -> None:
        """Close a connection here; a program or a worker may have it still, so epoll(7) must be told."""
        self._epoll.unregister(one.connection.fileno())
        one.connection.close()

    def _refuse_late(self) -> None:
        for one in self._pendings.expired(time.monotonic()) if len(self._pendings) else ():
            self._stop_waiting(one)
            self._refuse_header(one.position, one.remote[0])

    def _refuse_header(self, position: int, source: str) -> None:
        with self._lock:
            self._ledger.lock()
            self._ledger.refuse(self._work.rows[position], PROXY)
            self._ledger.unlock()
            self._tell_refusal(self._targets[position], PROXY, source, time.monotonic())

    def _begin(self, one: Connection, env: dict[bytes, bytes], fd: int) -> None:
        """Start the program of a connection that was counted in; the lock is held."""
        try:
            if one.target.has_worker:
                self._hand_over(one, env, fd)
            else:
                one.number = self._spawn(one.target, one.position, env, fd)
                self._live[one.number] = one
        except OSError as error:
            self._give_up(one, error)
            return
        if one.deadline:
            heappush(self._deadlines, (one.deadline, one.number, one))
            os.write(self._wake_write_fd, b".")

    def _spawn(self, target: Target, position: int, env: dict[bytes, bytes], fd: int) -> int:
        way = self._way
        assert way is not None
        try:
            way.enter(target.place, self._work.namespaces[position])
            return launch.launch(target.path, target.argv, env, fd)
        finally:
            way.leave()

    def _hand_over(self, one: Connection, env: dict[bytes, bytes], fd: int) -> None:
        handle = self._worker(one.position)
        self._numbers += 1
        one.number = self._numbers
        handle.send(one.number, one.target.argv, env, one.target.path, fd)
        handle.live.add(one.number)
        self._handed[one.number] = one

    def _give_up(self, one: Connection, error: OSError) -> None:
        self._ledger.lock()
        self._ledger.end(self._work.rows[one.position], one.slot, 0)
        self._ledger.unlock()
        if one.wait_fd >= 0:
            heappush(self._rearm, (time.monotonic() + 1, one.wait_fd))
            os.write(self._wake_write_fd, b".")
        if one.job is not None:
            self._end_job(one.job)
        self._tell_failure(one.target, one.position, error.errno or 0)

    def _tell_failure(self, target: Target, position: int, number: int) -> None:
        self._ledger.lock()
        self._ledger.add(self._work.rows[position], ledger.FAILED)
        self._ledger.unlock()
        cause = os.strerror(number)
        if number == 2:
            cause = "it, or its loader, is not in the tree"
            self._say(b"stale " + target.place.domain.encode())
        path = target.path.decode("utf-8", "backslashreplace")
        text = f"cannot run {path}: {cause}"
        if self._burst((target.service, target.place.domain or "-")).add(text, time.monotonic()):
            self._journal.write(ERROR, f"{target.name}: {text}")
            os.write(self._wake_write_fd, b".")

    def _make_room(self, listener: _socket.socket, error: OSError) -> None:
        """accept(2) failed: with the spare descriptor a client is answered by a close, not by silence."""
        if error.errno in _FULL:
            os.close(self._spare_fd)
            try:  # noqa: SIM105  contextlib would be loaded for it
                os.close(listener._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001
            except OSError:
                pass  # someone else answered
            self._spare_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        with self._lock:
            self._tell_refusal(None, f"{_NO_ROOM}: {error.strerror}", "", time.monotonic())
        time.sleep(_PAUSE)

    def _burst(self, name: tuple[str, str]) -> Bursts:
        burst = self._bursts.get(name)
        if burst is None:
            burst = self._bursts[name] = Bursts()
        return burst

    def _tell_refusal(self, target: Target | None, reason: str, source: str, now: float) -> None:
        """Log the first refusal of a burst; the rest is counted. The lock is held."""
        name = ("-", "-") if target is None else (target.service, target.place.domain or "-")
        if self._burst(name).add(reason, now):
            wanted = ("HOST",) if target is None else target.log_failure
            self._journal.write(NOTICE, messages.refused(*name, reason, source, wanted))
            os.write(self._wake_write_fd, b".")

    # ---- programs that take the listening socket, and periodic commands

    def _serve_wait(self, fd: int) -> None:
        endpoint, _, _ = self._listeners[fd]
        position = endpoint.default
        assert position is not None
        now = time.monotonic()
        target = self._targets[position]
        kind = b"TCP" if endpoint.kind == "tcp" else b"UDP"
        with self._lock:
            row = self._work.rows[position]
            self._ledger.lock()
            is_taken = self._ledger.row(row)[ledger.LIVE] > 0
            if not is_taken:
                self._ledger.admit(row, Limits(), "", now)
            self._ledger.unlock()
            if is_taken:  # by a program of the set before this one; its end is told by `free`
                return
            self._starts.setdefault(fd, []).append(now)
            one = Connection(target, position, "", now)
            one.wait_fd = fd
            env = {
                **target.env,
                b"PROTO": kind,
                kind + b"LOCALIP": endpoint.address.encode(),
                kind + b"LOCALPORT": b"%d" % endpoint.port,
            }
            self._begin(one, env, fd)

    def _plan_jobs(self) -> None:
        if self._work.runs_jobs:
            jobs = [
                Job(
                    target.place.domain,
                    target.service,
                    target.every,
                    last=self._ledger.row(self._work.rows[position])[ledger.LAST_RUN] or None,
                    what=position,
                )
                for position, target in enumerate(self._targets)
                if target.every
            ]
            self._schedule.replace(jobs, _now())

    def _run_jobs(self) -> None:
        with self._lock:
            following, self._following = self._following, []
            for job in (*following, *self._schedule.start(_now())):
                assert isinstance(job.what, int)
                target = self._targets[job.what]
                self._ledger.lock()
                row = self._work.rows[job.what]
                is_running = self._ledger.row(row)[ledger.LIVE] > 0  # by the set before this one
                if not is_running:
                    self._ledger.admit(row, Limits(), "", time.monotonic())
                    self._ledger.set(row, ledger.LAST_RUN, int(_now()))
                self._ledger.unlock()
                if is_running:
                    self._schedule.ended(job, _now())
                    continue
                one = Connection(target, job.what, "", time.monotonic())
                one.job = job
                self._begin(one, target.env, self._spare_fd)

    def _end_job(self, job: Job) -> None:
        """A periodic command has ended; the lock is held."""
        self._following += self._schedule.ended(job, _now())
        os.write(self._stop_write_fd, NUDGE)

    def _say(self, word: bytes) -> None:
        try:
            self._work.control.send(word, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            return  # the supervisor is gone or busy

    # ---- workers

    def _worker(self, position: int) -> "Handle":
        """The worker of a target, started where there is none; the lock is held. Raises OSError."""
        target = self._targets[position]
        handle = self._workers.get(target.name)
        if handle is not None:
            return handle
        ours, theirs = worker.pair()
        pid = os.fork()
        if pid == 0:
            self._become_worker(position, theirs)
        theirs.close()
        handle = self._workers[target.name] = worker.Handle(target.name, pid, ours)
        handle.idle_since = time.monotonic()
        self._poll.register(ours.fileno(), select.POLLIN)
        os.write(self._wake_write_fd, b".")  # poll(2) does not see what is added while it waits
        return handle

    def _become_worker(self, position: int, socket: _socket.socket) -> "NoReturn":
        status = 70
        try:
            target = self._targets[position]
            self._ledger.close()
            if self._way is not None:
                self._way.enter(target.place, self._work.namespaces[position])
            worker.become(target, socket.fileno())
        finally:
            os._exit(status)


def _gates(targets: tuple[Target, ...]) -> dict[int, Gate]:
    """The gates of the targets that have one; a thousand domains often share theirs."""
    made: dict[object, Gate] = {}
    found = {}
    for position, target in enumerate(targets):
        limits = target.limits
        key = (limits.only_from, limits.no_access, limits.access_times)
        if any(key):
            found[position] = made[key] = made.get(key) or Gate(limits)
    return found


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _send(connection: _socket.socket, text: bytes) -> None:
    try:
        connection.send(text, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        return  # it will read the end of the connection instead
