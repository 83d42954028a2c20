"""Doer: one process per core that answers connections: one thread accepts and starts, the other reaps.

It is pid 1 of a pid namespace: what it starts can neither see nor signal the server.
"""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _thread
import os
import select
import time
from heapq import heappop, heappush

from virttools import linux
from virttools.serve import jail, launch, ledger, messages
from virttools.serve.acceptor import STOP, Acceptor
from virttools.serve.journal import ERROR, INFO, NOTICE, TRIED_AGAIN, WARNING
from virttools.serve.live import Connection
from virttools.serve.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from virttools.serve.worker import Handle

_WORKER_IDLE = 60.0
_WORKERS_LOOKED_AT = 20.0
_GRACE = 10.0
_NOT_STARTED = -1000  # a worker says by it, less the errno, that execve(2) failed
_COALESCE = 0.01
_LOOP_STARTS, _LOOP_SECONDS = 256, 60.0


def run(work: Work) -> "NoReturn":
    """Be a spawner until told to drain and all that was started has ended."""
    status = 70
    try:
        os.umask(0o022)
        os.setsid()
        linux.hide_memory()
        jail.confine()
        _Spawner(work).run()
        status = 0
    except Exception as error:  # noqa: BLE001  the supervisor starts another
        work.journal.write(ERROR, f"internal error: {type(error).__name__}: {error}")
        work.journal.flush()
    finally:
        os._exit(status)


class _Spawner(Acceptor):
    """The thread that reaps, logs, and hears the supervisor and the workers."""

    def run(self) -> None:
        # A handler would run, and interrupt the sleep of _hear, for each program that ends.
        _signal.set_wakeup_fd(-1)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))
        self._ended_fd = linux.signalfd(_signal.SIGCHLD)
        _thread.start_new_thread(self._accept_all, ())
        self._poll.register(self._wake_fd, select.POLLIN)
        self._poll.register(self._ended_fd, select.POLLIN)
        self._poll.register(self._work.control.fileno(), select.POLLIN)
        while not self._is_over():
            ready = [fd for fd, _ in self._poll.poll(self._patience())]
            for fd in ready:
                self._hear(fd)
            self._look_at_clock(time.monotonic())
            self._journal.flush()
            with self._lock:
                self._ledger.add_lost(self._journal.losses())

    def _is_over(self) -> bool:
        """Whether all that was started is gone, what it left behind included: it would end with us."""
        if not self._has_stopped:
            return False
        with self._lock:
            for handle in list(self._workers.values()):
                if not handle.live:
                    self._dismiss(handle)
        self._reap()
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False

    def _patience(self) -> int | None:
        """Milliseconds to the next thing that is due, or None: nothing is, and nothing wakes us up."""
        with self._lock:
            due = [heap[0][0] for heap in (self._deadlines, self._rearm) if heap]
            due += [when for burst in self._bursts.values() if (when := burst.due()) is not None]
            if self._journal.is_behind():
                due.append(time.monotonic() + TRIED_AGAIN)
            if any(not handle.live for handle in self._workers.values()):
                due.append(time.monotonic() + _WORKERS_LOOKED_AT)
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1) if due else None

    def _hear(self, fd: int) -> None:
        if fd == self._ended_fd:
            # Ends come in crowds: one look for many costs less than one look for each.
            time.sleep(_COALESCE)
            os.read(fd, 1024)
            self._reap()
        elif fd == self._wake_fd:
            os.read(fd, 65536)
        elif fd == self._work.control.fileno():
            self._obey(self._told())
        else:
            self._hear_worker(fd)

    def _told(self) -> bytes:
        """A word of the supervisor's; b"": it is gone, perhaps without having read all that we said (unix(7))."""
        try:
            return self._work.control.recv(64)
        except ConnectionError:
            return b""

    def _obey(self, word: bytes) -> None:
        if word == b"free":
            with self._lock:
                for fd, (endpoint, _, _) in self._listeners.items():
                    if endpoint.is_wait and not self._is_served(fd):
                        self._arm(fd)
            return
        if not word:  # the supervisor is gone: nobody would ever tell us to end
            self._poll.unregister(self._work.control.fileno())
        if not self._is_draining:
            self._is_draining = True
            os.write(self._stop_write_fd, STOP)

    def _is_served(self, fd: int) -> bool:
        both = (*self._live.values(), *self._handed.values())
        return any(connection.wait_fd == fd for connection in both)

    def _reap(self) -> None:
        ended = []
        with self._lock:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if not pid:
                    break
                connection = self._live.pop(pid, None)
                if connection is not None:
                    ended.append((connection, os.waitstatus_to_exitcode(status)))
            if ended:
                self._settle(ended)

    def _settle(self, ended: "list[tuple[Connection, int]]") -> None:
        """Count and log ends; the lock is held."""
        now = time.monotonic()
        self._ledger.lock()
        for connection, status in ended:
            row = self._work.rows[connection.position]
            self._ledger.end(row, connection.slot, now - connection.started)
            if connection.job is not None and status and status > _NOT_STARTED:
                self._ledger.add(row, ledger.FAILED)
        self._ledger.unlock()
        for connection, status in ended:
            connection.deadline = 0.0
            line = connection.told(status, now)
            if line:
                self._journal.write(INFO, line)
            if connection.wait_fd >= 0:
                self._after_wait(connection, now)
            if connection.job is not None:
                self._end_job(connection.job)

    def _after_wait(self, connection: Connection, now: float) -> None:
        """A program has given its listening socket back: listen again, or later if it looks like a loop."""
        fd = connection.wait_fd
        if self._is_draining:
            self._say(b"free")
            return
        starts = [one for one in self._starts.get(fd, []) if now - one < _LOOP_SECONDS]
        self._starts[fd] = starts
        if len(starts) < _LOOP_STARTS:
            self._arm(fd)
            return
        self._journal.write(
            WARNING, f"{connection.target.name}: started {len(starts)} times in a minute: rests"
        )
        heappush(self._rearm, (now + _LOOP_SECONDS, fd))

    def _arm(self, fd: int) -> None:
        try:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
        except (OSError, ValueError):
            return  # draining: it is no longer ours

    def _look_at_clock(self, now: float) -> None:
        with self._lock:
            while self._rearm and self._rearm[0][0] <= now:
                self._arm(heappop(self._rearm)[1])
            while self._deadlines and self._deadlines[0][0] <= now:
                self._end_late(heappop(self._deadlines)[2], now)
            for name, burst in self._bursts.items():
                for reason, more, seconds in burst.ended(now):
                    self._journal.write(NOTICE, messages.burst(*name, reason, more, seconds))
            for handle in list(self._workers.values()):
                if not handle.live and now - handle.idle_since > _WORKER_IDLE:
                    self._dismiss(handle)

    def _end_late(self, connection: Connection, now: float) -> None:
        """End a program that has had its time: politely first."""
        if not connection.deadline:  # it has ended
            return
        is_first = connection.deadline <= connection.started + connection.target.timeout
        number = connection.number
        signal = _signal.SIGTERM if is_first else _signal.SIGKILL
        if self._live.get(number) is connection:
            launch.end(number, signal)
        elif self._handed.get(number) is connection:
            try:  # noqa: SIM105  contextlib would be loaded for it
                self._workers[connection.target.name].end(number, signal)
            except OSError:
                pass  # a worker that takes nothing more is the tenant's own doing
        if is_first:
            connection.deadline = now + _GRACE
            heappush(self._deadlines, (connection.deadline, number, connection))

    # ---- workers

    def _hand_over(self, one: Connection, env: dict[bytes, bytes], fd: int) -> None:
        """To another worker where the one that was there has just been ended, which is not heard yet."""
        try:
            super()._hand_over(one, env, fd)
        except ConnectionError:
            self._lose(self._workers[one.target.name])
            super()._hand_over(one, env, fd)

    def _hear_worker(self, fd: int) -> None:
        with self._lock:
            handle = next(
                (one for one in self._workers.values() if one.socket.fileno() == fd), None
            )
            if handle is None:
                return
            ended: list[tuple[Connection, int]] = []
            is_open = self._take_ends(handle, ended)
            if ended:
                self._settle(ended)
                self._tell_failures(ended)
            if not is_open:
                self._lose(handle)

    def _take_ends(self, handle: "Handle", ended: "list[tuple[Connection, int]]") -> bool:
        while True:
            try:
                told = handle.receive()
            except BlockingIOError:
                return True
            if told is None:
                return False
            number, status = told
            if number in handle.live:
                handle.live.discard(number)
                ended.append((self._handed.pop(number), status))
            if not handle.live:
                handle.idle_since = time.monotonic()

    def _tell_failures(self, ended: "list[tuple[Connection, int]]") -> None:
        for connection, status in ended:
            if status <= _NOT_STARTED:
                self._tell_failure(connection.target, connection.position, _NOT_STARTED - status)

    def _lose(self, handle: "Handle") -> None:
        """A worker was killed: its connections are no longer ours; the next one starts another."""
        lost = [(self._handed.pop(number), -9) for number in list(handle.live)]
        handle.live.clear()
        if lost:
            self._settle(lost)
        self._journal.write(NOTICE, f"{handle.name}: its worker was ended")
        self._dismiss(handle)

    def _dismiss(self, handle: "Handle") -> None:
        self._poll.unregister(handle.socket.fileno())
        handle.socket.close()
        self._workers.pop(handle.name, None)
