"""Doer: the daemons of all domains: started, watched, started anew as `restarting` says, and ended."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import os
import select
import time

from virttools import linux
from virttools.enter.signals import EVERY
from virttools.serve import keeper
from virttools.serve.board import Daemon
from virttools.serve.journal import ERROR, INFO, NOTICE, WARNING, Journal
from virttools.serve.restarting import Course

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Key = tuple[str, str]
    Row = tuple[str, str, str, int, float, int, str]

_CREDENTIALS = 2  # SCM_CREDENTIALS, unix(7)
_STEPS = {
    keeper.TREE: "cannot find its tree",
    keeper.ENTRANCE: "cannot enter its tree",
    keeper.RIGHTS: "cannot take its limits and user",
}
_STALE = 116  # ESTALE


class _Kept:
    """One daemon. process: of its keeper, or 0; pid: its own; due: when it is started, None: not by time."""

    __slots__ = (
        "control", "course", "daemon", "due", "is_gone", "is_stopping", "likeness", "pid", "process",
        "report",
    )  # fmt: skip

    def __init__(self, likeness: str, course: Course) -> None:
        self.likeness = likeness
        self.course = course
        self.daemon: Daemon | None = None
        self.control: _socket.socket | None = None
        self.process = self.pid = 0
        self.due: float | None = None
        self.is_stopping = self.is_gone = False
        self.report = b""


class Fleet:
    """All daemons, by domain and name. What it needs of the supervisor's loop: poll, reap, tend.

    prepare: called in each process that is to be a daemon's.
    """

    def __init__(self, poll: select.poll, journal: Journal, prepare: "Callable[[], None]") -> None:
        self._poll = poll
        self._journal = journal
        self._prepare = prepare
        self._pid_fd = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._all: dict[Key, _Kept] = {}
        self._controls: dict[int, Key] = {}

    def want(self, daemons: "Iterable[Daemon]", *, is_asked: bool = True) -> None:
        """Have these run, and no others; who runs unchanged is left alone.

        is_asked: by somebody, so who rests is tried now.
        """
        now = time.monotonic()
        wanted = {daemon.key(): daemon for daemon in daemons}
        for key, one in list(self._all.items()):
            if key not in wanted:
                one.is_gone, one.due = True, None
                self._stop(one)
                if not one.process:
                    del self._all[key]
        for key, daemon in wanted.items():
            self._want(key, daemon, now, is_asked=is_asked)
        self.tend(now)

    def _want(self, key: "Key", daemon: Daemon, now: float, *, is_asked: bool) -> None:
        likeness = daemon.likeness()
        one = self._all.get(key)
        if one is None:
            one = self._all[key] = _Kept("", Course(daemon.restart, daemon.backoff))
        one.daemon, one.is_gone = daemon, False
        if one.likeness == likeness:
            if one.due is not None and is_asked:
                one.due = now
            return
        one.likeness = likeness
        one.course = Course(daemon.restart, daemon.backoff)
        self._stop(one)
        if not one.process:
            one.due = now

    def tend(self, now: float) -> None:
        """Start those that are due, and tell of those that have settled."""
        for key, one in self._all.items():
            if one.due is not None and one.due <= now:
                self._start(key, one)
            settles = one.course.settles_at()
            if one.process and settles is not None and settles <= now:
                ends = one.course.settled()
                self._journal.write(NOTICE, f"{_name(key)}: runs again, after {ends} ends")

    def patience(self) -> float | None:
        """Seconds until `tend` has something to do; None: nothing is due."""
        times = []
        for one in self._all.values():
            settles = one.course.settles_at()
            if one.due is not None:
                times.append(one.due)
            elif one.process and settles is not None:
                times.append(settles)
        return max(0.0, min(times) - time.monotonic()) if times else None

    # ---- one of them

    def _start(self, key: "Key", one: _Kept) -> None:
        assert one.daemon is not None
        kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
        ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        now = time.monotonic()
        one.report, one.pid, one.due, one.is_stopping = b"", 0, None, False
        try:
            one.process = self._fork(one.daemon, theirs)
        except OSError as error:
            one.course.begin(now)
            self._settle(key, one, f"cannot be started: {error.strerror}", is_failure=True)
            ours.close()
            return
        finally:
            theirs.close()
        one.course.begin(now)
        self._take_control(key, one, _socket.socket(fileno=ours.detach()))

    def _fork(self, daemon: Daemon, theirs: _socket.socket) -> int:
        """A process that is the first of a pid namespace; ours are blocked meanwhile, theirs for good."""
        before = _signal.pthread_sigmask(_signal.SIG_SETMASK, EVERY)
        server = os.getpid()
        linux.unshare(linux.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    self._prepare()
                    keeper.become(daemon, theirs)
                finally:
                    os._exit(70)
        finally:
            if os.getpid() == server:
                linux.setns(self._pid_fd, linux.CLONE_NEWPID)
                _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        return pid

    def _take_control(self, key: "Key", one: _Kept, control: _socket.socket) -> None:
        one.control = control
        self._controls[control.fileno()] = key
        self._poll.register(control.fileno(), select.POLLIN)

    def _stop(self, one: _Kept) -> None:
        if not one.process or one.is_stopping:
            return
        one.is_stopping = True
        if one.control is not None:
            try:
                one.control.send(keeper.STOP, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
            except OSError:
                return  # it has just ended

    def controls(self) -> list[int]:
        return list(self._controls)

    def has(self, fd: int) -> bool:
        return fd in self._controls

    def hear(self, fd: int) -> None:
        """Take a report."""
        one = self._all[self._controls[fd]]
        assert one.control is not None
        if not self._take_report(one):
            self._close(one)

    def _take_report(self, one: _Kept) -> bool:
        assert one.control is not None
        try:
            text, rights, _, _ = one.control.recvmsg(512, 64, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if text[:1] == keeper.STARTED:
            one.pid = _sender(rights) or one.process
        elif text and one.report[:1] != keeper.FAILED:  # which its end would only repeat
            one.report = text
        return bool(text)

    def _close(self, one: _Kept) -> None:
        if one.control is not None:
            self._poll.unregister(one.control.fileno())
            del self._controls[one.control.fileno()]
            one.control.close()
            one.control = None

    def reap(self, process: int) -> bool:
        """A child of the server has ended; whether it was one of ours."""
        for key, one in self._all.items():
            if one.process == process:
                while one.control is not None and self._take_report(one) and not one.report:
                    pass
                self._close(one)
                one.process = one.pid = 0
                self._after(key, one)
                return True
        return False

    def _after(self, key: "Key", one: _Kept) -> None:
        how, is_failure = _how(one)
        if not one.is_stopping:
            self._settle(key, one, how, is_failure=is_failure)
            return
        one.course.last = how
        self._journal.write(INFO, f"{_name(key)}: {how}, as it was told to")
        if one.is_gone:
            del self._all[key]
        else:
            one.due = time.monotonic()

    def _settle(self, key: "Key", one: _Kept, how: str, *, is_failure: bool) -> None:
        """It ended by itself: when is it started anew, and is that worth a line."""
        now = time.monotonic()
        wait = one.course.ended(how, now, is_failure=is_failure)
        one.due = None if wait is None else now + wait
        if wait is None:
            level = WARNING if is_failure else NOTICE
            self._journal.write(level, f"{_name(key)}: {how}; it is not started again")
        elif one.course.is_news():
            more = f"; tried again, at last every {one.course.most:.0f} s" if wait else ""
            self._journal.write(ERROR, f"{_name(key)}: {how}: starting anew{more}")

    # ---- the end, and a successor

    def stop(self) -> None:
        """Have all end, each by its signal, or by SIGKILL when its time is up."""
        self.want(())

    def kill(self) -> None:
        """End all at once."""
        for one in self._all.values():
            if one.process:
                os.kill(one.process, _signal.SIGKILL)

    def is_over(self) -> bool:
        return not any(one.process for one in self._all.values())

    def state(self) -> "list[Any]":
        """What a successor in the same process needs, beside the `controls`."""
        found: list[Any] = []
        for key, one in self._all.items():
            fd = -1
            if one.control is not None:
                fd = one.control.fileno()
            flags = (one.is_stopping, one.is_gone)
            course = one.course.state()
            found.append(
                (key, one.likeness, course, fd, one.process, one.pid, one.due, flags, one.report)
            )
        return found

    def take(self, state: "list[Any]") -> None:
        """Take what a predecessor's `state` told."""
        for key, likeness, course, fd, process, pid, due, flags, report in state:
            one = self._all[key] = _Kept(likeness, Course.of(course))
            one.process, one.pid, one.due, one.report = process, pid, due, report
            one.is_stopping, one.is_gone = flags
            if fd >= 0:
                self._take_control(key, one, _socket.socket(fileno=fd))

    def rows(self) -> "list[Row]":
        """For the status: name, domain, state, pid, seconds since it was started, restarts, last end."""
        now = time.monotonic()
        return [
            (
                key[1],
                key[0],
                _state(one),
                one.pid,
                now - one.course.started if one.process else 0.0,
                one.course.restarts,
                one.course.last,
            )
            for key, one in sorted(self._all.items())
        ]


def _state(one: _Kept) -> str:
    if one.is_stopping and one.process:
        return "stopping"
    if one.process:
        return "running"
    return "ended" if one.due is None else "waiting"


def _name(key: "Key") -> str:
    return f"{key[1]} {key[0]}"


def _sender(rights: "list[tuple[int, int, bytes]]") -> int:
    """The pid, in our namespace, of who sent a message."""
    for level, kind, content in rights:
        if level == _socket.SOL_SOCKET and kind == _CREDENTIALS:
            return int.from_bytes(content[:4], "little")
    return 0


def _how(one: _Kept) -> tuple[str, bool]:
    """How it ended, in words, and whether that is a failure."""
    report = one.report
    if report[:1] == keeper.FAILED:
        return _failure(one, report[1], int.from_bytes(report[2:6], "little")), True
    if report[:1] != keeper.ENDED:
        return "was killed, with its keeper", True
    status = os.waitstatus_to_exitcode(int.from_bytes(report[1:5], "little"))
    words = report[6:].decode("utf-8", "replace").strip()
    said = f" ({''.join(c if c.isprintable() else '?' for c in words)})" if words else ""
    if status < 0:
        return f"was killed by signal {-status}{said}", True
    if report[5:6] == b"\1" and status == 0:
        return "went into the background: it must be told to stay in the foreground", True
    return f"ended with status {status}{said}", status != 0


def _failure(one: _Kept, step: int, number: int) -> str:
    if number == _STALE:
        return "its tree is another one by now: SIGHUP has the server read it"
    if step in _STEPS:
        return f"{_STEPS[step]}: {os.strerror(number)}"
    path = "it" if one.daemon is None else one.daemon.path.decode("utf-8", "backslashreplace")
    cause = "it, or its loader, is not in the tree" if number == 2 else os.strerror(number)
    return f"cannot run {path}: {cause}"
