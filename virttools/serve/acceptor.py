"""Doer: the thread of a spawner that accepts connections, admits them, and starts their programs."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import os
import select
import time
from heapq import heappush

from virttools.serve import launch, ledger
from virttools.serve.admission import PROXY, Gate, Limits, Networks
from virttools.serve.board import Endpoint, Finder
from virttools.serve.crowd import Crowd, Waiting
from virttools.serve.journal import ERROR
from virttools.serve.live import Connection
from virttools.serve.namespaces import Way
from virttools.serve.proxied import Pending, Pendings
from virttools.serve.proxyprotocol import ProxyError
from virttools.serve.starter import Starter, boottime
from virttools.serve.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from virttools.serve.board import Target

STOP = b"."
_ROUTE = "no_route"
_NO_ROOM = "no_room"
_FULL = (23, 24)  # ENFILE, EMFILE
_SHUT = 22  # EINVAL: others listen in its place, and this spawner is about to be told to stop
_PAUSE = 0.05
_QUEUE = 4096  # net.core.somaxconn; a service manager may have asked for as many


class Acceptor(Starter):
    """The thread that takes what comes."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._starts: dict[int, list[float]] = {}
        self._gates = _gates(self._targets)
        self._pendings = Pendings()
        self._crowd = Crowd()
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
        self._is_draining = False
        self._has_stopped = False

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
        """Take no more, but all that a wake-up of ours may stand for: nobody else was woken for it.

        That is what waits by then, no more: who connects without a pause must not keep us. A listener
        that no other process has is closed then, though sessions of ours may go on for hours.
        """
        for fd, (endpoint, _, _) in self._listeners.items():
            self._epoll.unregister(fd)
            for _ in range(0 if endpoint.is_wait else max(endpoint.backlog, _QUEUE) + 1):
                if not self._accept(fd):
                    break
        while len(self._crowd):
            self._serve_crowd()
        while len(self._pendings):
            for fd, _ in self._epoll.poll(self._until_due()):
                if fd in self._pendings:
                    self._read_header(self._pendings.get(fd))
                else:
                    self._epoll.unregister(fd)  # told to stop, which we do
            self._refuse_late()
        for _, listener, _ in self._listeners.values():
            listener.close()

    def _serve_ready(self) -> bool:
        """Serve what is ready, or due; False where it is time to stop."""
        is_open = True
        ready = self._epoll.poll(0 if len(self._crowd) else self._until_due())
        for fd, _ in ready:
            if fd == self._stop_fd:
                is_open = STOP not in os.read(fd, 4096)
            elif fd in self._pendings:
                self._read_header(self._pendings.get(fd))
            elif self._listeners[fd][0].is_wait:
                self._serve_wait(fd)
            else:
                self._accept(fd)
        self._refuse_late()
        if len(self._crowd) and self._crowd.is_due(somebody_came=bool(ready)):
            self._serve_crowd()
        if self._has_refused:
            self._has_refused = False
            os.sched_yield()  # who floods a domain must not take the processor from the others
        if is_open and self._work.runs_jobs:
            self._run_jobs()
        return is_open

    def _until_due(self) -> float | None:
        """Seconds until a command or the patience with a proxy is due; None: nothing is."""
        due = None if self._is_draining else self._schedule.next_due()
        late = self._pendings.due()
        waits = [] if due is None else [due - boottime()]
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
            if error.errno == _SHUT:
                time.sleep(_PAUSE)
                return False
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
        ends = (local, endpoint.port), (source, peer[1])
        if self._crowd.has_room_for(position, now):
            family = connection.family
            self._crowd.add(Waiting(connection.detach(), family, position, *ends))
            return
        self._admit(connection, position, *ends)

    def _serve_crowd(self) -> None:
        """One of those who flood a target, after all others that are at the door."""
        one = self._crowd.next()
        connection = _socket.socket(one.family, _socket.SOCK_STREAM, 0, one.fd)
        try:
            self._admit(connection, one.position, one.local, one.remote)
        finally:
            connection.close()

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
                self._crowd.refuse(position, now)
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

    def _make_room(self, listener: _socket.socket, error: OSError) -> None:
        """accept(2) failed: with the spare descriptor a client is answered by a close, not by silence."""
        if error.errno in _FULL:
            os.close(self._spare_fd)
            try:  # noqa: SIM105  contextlib would be loaded for it
                os.close(listener._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001
            except OSError:
                pass  # someone else answered
            self._spare_fd = os.dup(self._null_fd)
        with self._lock:
            self._tell_refusal(None, f"{_NO_ROOM}: {error.strerror}", "", time.monotonic())
        time.sleep(_PAUSE)

    # ---- programs that take the listening socket

    def _serve_wait(self, fd: int) -> None:
        endpoint, listener, _ = self._listeners[fd]
        position = endpoint.default
        assert position is not None
        now = time.monotonic()
        if _is_shut(endpoint, listener):  # by the supervisor, for others; it may listen again
            with self._lock:
                heappush(self._rearm, (now + 1, fd))
            os.write(self._wake_write_fd, b".")
            return
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


def _gates(targets: "tuple[Target, ...]") -> dict[int, Gate]:
    """The gates of the targets that have one; a thousand domains often share theirs."""
    made: dict[object, Gate] = {}
    found = {}
    for position, target in enumerate(targets):
        limits = target.limits
        key = (limits.only_from, limits.no_access, limits.access_times)
        if any(key):
            found[position] = made[key] = made.get(key) or Gate(limits)
    return found


def _is_shut(endpoint: Endpoint, listener: _socket.socket) -> bool:
    return endpoint.kind == "tcp" and not listener.getsockopt(
        _socket.SOL_SOCKET, _socket.SO_ACCEPTCONN
    )


def _send(connection: _socket.socket, text: bytes) -> None:
    try:
        connection.send(text, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        return  # it will read the end of the connection instead
