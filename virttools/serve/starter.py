"""Doer: starts what a spawner was asked for, itself or by a worker, and tells what it cannot start.

Its two threads, the one that accepts and the one that reaps, share what stands here.
"""

import _socket
import _thread
import os
import select
import time
from heapq import heappush

from virttools.enter import nothing
from virttools.serve import launch, ledger, messages, worker
from virttools.serve.admission import Bursts, Limits
from virttools.serve.board import Target
from virttools.serve.journal import ERROR, NOTICE
from virttools.serve.live import Connection
from virttools.serve.namespaces import Way
from virttools.serve.schedule import Job, Schedule
from virttools.serve.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from virttools.serve.worker import Handle

NUDGE = b"n"


class Starter:
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
        self._stop_fd, self._stop_write_fd = os.pipe2(os.O_CLOEXEC)
        self._wake_fd, self._wake_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._null_fd = nothing.open_null()
        self._spare_fd = os.dup(self._null_fd)
        self._forking = _forking() if any(target.zygote for target in self._targets) else b""
        self._has_refused = False
        self._schedule = Schedule()
        self._following: list[Job] = []
        self._way: Way | None = None
        self._poll = select.poll()

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

    def _burst(self, name: tuple[str, str]) -> Bursts:
        burst = self._bursts.get(name)
        if burst is None:
            burst = self._bursts[name] = Bursts()
        return burst

    def _tell_refusal(self, target: Target | None, reason: str, source: str, now: float) -> None:
        """Log the first refusal of a burst; the rest is counted. The lock is held."""
        self._has_refused = True
        name = ("-", "-") if target is None else (target.service, target.place.domain or "-")
        if self._burst(name).add(reason, now):
            wanted = ("HOST",) if target is None else target.log_failure
            self._journal.write(NOTICE, messages.refused(*name, reason, source, wanted))
            os.write(self._wake_write_fd, b".")

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
            worker.become(target, socket.fileno(), self._null_fd, self._forking)
        finally:
            os._exit(status)

    # ---- periodic commands

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
            self._schedule.replace(jobs, boottime())

    def _run_jobs(self) -> None:
        with self._lock:
            following, self._following = self._following, []
            for job in (*following, *self._schedule.start(boottime())):
                assert isinstance(job.what, int)
                target = self._targets[job.what]
                self._ledger.lock()
                row = self._work.rows[job.what]
                is_running = self._ledger.row(row)[ledger.LIVE] > 0  # by the set before this one
                if not is_running:
                    self._ledger.admit(row, Limits(), "", time.monotonic())
                    self._ledger.set(row, ledger.LAST_RUN, int(boottime()))
                self._ledger.unlock()
                if is_running:
                    self._schedule.ended(job, boottime())
                    continue
                one = Connection(target, job.what, "", time.monotonic())
                one.job = job
                self._begin(one, target.env, self._null_fd)

    def _end_job(self, job: Job) -> None:
        """A periodic command has ended; the lock is held."""
        self._following += self._schedule.ended(job, boottime())
        os.write(self._stop_write_fd, NUDGE)

    def _say(self, word: bytes) -> None:
        try:
            self._work.control.send(word, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except OSError:
            return  # the supervisor is gone or busy


def _forking() -> bytes:
    """The text that a tree's Python runs as a zygote: read before any tree is entered."""
    with open(f"{os.path.dirname(__file__)}/forking.py", "rb") as file:
        return file.read()


def boottime() -> float:
    """The time of a clock that runs on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
