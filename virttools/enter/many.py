"""Doer: runs one command in many domains, some at a time, and tells whose each line of output is."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import os
import select

from virttools import linux
from virttools.enter import execute, inside
from virttools.enter.options import Options
from virttools.enter.reports import Report
from virttools.errors import EnterError, UsageError, VirtError

_PIECE = 65536
_LONGEST = 1 << 20
"""Bytes of a line without an end that are kept in memory; then it is told in pieces."""

_GRACE = 1000
"""Milliseconds between SIGTERM and SIGKILL for those that are stopped."""

_STOPPING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


class _Stopped(BaseException):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Stream:
    """The reading end of one output of one command, and the line that has not ended yet."""

    __slots__ = ("begun", "domain", "fd", "number")

    def __init__(self, domain: str, number: int, fd: int) -> None:
        self.domain = domain
        self.number = number
        self.fd = fd
        self.begun = b""


class _Job:
    """A command that runs in a domain: its process, and both outputs."""

    __slots__ = ("domain", "pid", "pid_fd", "streams")

    def __init__(self, domain: str, pid: int, streams: "tuple[_Stream, _Stream]") -> None:
        self.domain = domain
        self.pid = pid
        self.pid_fd = os.pidfd_open(pid)
        self.streams = streams


def run(root: str, options: Options, *, as_json: bool) -> int:
    """Run the command in every domain that is asked for; the highest status of all.

    Standard input is empty, each command has a session of its own. A signal that stops us stops
    all of them. Raises EnterError where there is no domain to run it in.
    """
    names = _matching(root, options.match)
    if not options.is_chroot:
        from virttools.enter import contain  # noqa: F401  once for all: the children inherit it
    linux.adopt_orphans()
    report = Report(names, as_json=as_json)
    crew = _Crew(root, options, report)
    handlers = [(number, _signal.signal(number, _stop)) for number in _STOPPING]
    try:
        crew.work(list(reversed(names)), options.parallel or len(os.sched_getaffinity(0)))
    except _Stopped as stopped:
        crew.stop()
        report.end(stopped.number)
        return 128 + stopped.number
    except BaseException:
        crew.stop()
        raise
    finally:
        for number, handler in handlers:
            _signal.signal(number, handler)
    return report.end()


def _matching(root: str, glob: "str | None") -> "list[str]":
    names = inside.domains(root)
    if glob is not None:
        from fnmatch import fnmatchcase

        names = [name for name in names if fnmatchcase(name, glob.lower())]
    if not names:
        which = "" if glob is None else f" that matches {glob}"
        raise EnterError(
            f"cannot run a command: {root} holds no domain{which}",
            hint="`virt list` names the domains",
        )
    return names


def _stop(number: int, _frame: object) -> None:
    raise _Stopped(number)


class _Crew:
    """The commands that run at this moment."""

    __slots__ = ("_jobs", "_options", "_others", "_poll", "_report", "_root", "_streams")

    def __init__(self, root: str, options: Options, report: Report) -> None:
        self._root = root
        self._options = options
        self._report = report
        self._others = _children()  # a shell's own, before it became us
        self._poll = select.poll()
        self._jobs: dict[int, _Job] = {}
        self._streams: dict[int, _Stream] = {}

    def work(self, waiting: "list[str]", most: int) -> None:
        """Run the command in each domain, from the last on, at most so many at once."""
        while waiting or self._jobs:
            while waiting and len(self._jobs) < most:
                self._start(waiting.pop())
            for fd, _ in self._poll.poll():
                if fd in self._streams:
                    self._read(self._streams[fd])
                elif fd in self._jobs:
                    self._end(self._jobs[fd])

    def stop(self) -> None:
        """End what still runs: by SIGTERM, then by SIGKILL; nothing is left when this returns."""
        for number in _STOPPING:
            _signal.signal(number, _signal.SIG_IGN)
        self._report.is_tolerant = True
        for number, patience in ((_signal.SIGTERM, _GRACE), (_signal.SIGKILL, -1)):
            for job in self._jobs.values():
                _kill(job.pid, number)
            self._await(patience)
        # What left its session, and the pid namespaces that end on their own, are ours by now.
        while orphans := _children() - self._others:
            for pid in orphans:
                os.kill(pid, _signal.SIGKILL)
                os.waitpid(pid, 0)

    def _await(self, patience: int) -> None:
        """Wait for the ends of all; patience: milliseconds without one, or -1."""
        poll = select.poll()
        for pid_fd in self._jobs:
            poll.register(pid_fd, select.POLLIN)
        while self._jobs:
            ended = poll.poll(patience)
            if not ended:
                return
            for pid_fd, _ in ended:
                poll.unregister(pid_fd)
                self._end(self._jobs[pid_fd])

    def _start(self, domain: str) -> None:
        outs, errs = os.pipe(), os.pipe()
        # No signal may come between a child's birth and its entry in our list.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _STOPPING)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            fds = {"out_fd": outs[1], "err_fd": errs[1]}
            _become(self._root, self._options, domain, parent=parent, **fds)
        os.close(outs[1])
        os.close(errs[1])
        job = _Job(domain, pid, (_Stream(domain, 1, outs[0]), _Stream(domain, 2, errs[0])))
        self._jobs[job.pid_fd] = job
        self._poll.register(job.pid_fd, select.POLLIN)
        for stream in job.streams:
            os.set_blocking(stream.fd, False)
            self._streams[stream.fd] = stream
            self._poll.register(stream.fd, select.POLLIN)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _STOPPING)

    def _read(self, stream: _Stream) -> int:
        """Tell the lines that one read brings; how many bytes it brought."""
        try:
            piece = os.read(stream.fd, _PIECE)
        except BlockingIOError:
            return 0
        if not piece:
            self._close(stream)
            return 0
        whole, newline, begun = (stream.begun + piece).rpartition(b"\n")
        stream.begun = begun
        if newline:
            self._report.lines(stream.domain, stream.number, whole.split(b"\n"))
        if len(begun) > _LONGEST:
            self._report.lines(stream.domain, stream.number, [begun], is_partial=True)
            stream.begun = b""
        return len(piece)

    def _close(self, stream: _Stream) -> None:
        self._poll.unregister(stream.fd)
        del self._streams[stream.fd]
        os.close(stream.fd)
        if stream.begun:
            self._report.lines(stream.domain, stream.number, [stream.begun], is_partial=True)

    def _end(self, job: _Job) -> None:
        """Take the status, and what is left in the pipes: a daemon may hold them open for ever."""
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _STOPPING)
        _, status = os.waitpid(job.pid, 0)
        self._poll.unregister(job.pid_fd)
        del self._jobs[job.pid_fd]
        os.close(job.pid_fd)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _STOPPING)
        for stream in job.streams:
            left = _LONGEST  # more than a pipe holds
            while left > 0 and stream.fd in self._streams and (count := self._read(stream)):
                left -= count
            if stream.fd in self._streams:
                self._close(stream)
        code = os.waitstatus_to_exitcode(status)
        self._report.done(job.domain, code if code >= 0 else 128 - code)


def _children() -> "set[int]":
    """The pids of our children (proc(5), CONFIG_PROC_CHILDREN); none where it cannot be told."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb", buffering=0) as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def _kill(pid: int, number: int) -> None:
    """Signal the command's process group, and the process where it has none of its own yet."""
    for kill in (os.killpg, os.kill):
        try:  # noqa: SIM105  contextlib would be loaded into every child
            kill(pid, number)
        except ProcessLookupError:
            pass


def _become(
    root: str, options: Options, domain: str, *, out_fd: int, err_fd: int, parent: int
) -> None:
    """In the child: run the command as `virt exec` does; never comes back."""
    status = 125
    try:
        linux.set_death_signal(_signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)  # it ended in between
        os.setsid()
        for number in _STOPPING:
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _STOPPING)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out_fd, 1)
        os.dup2(err_fd, 2)
        options.domain = domain
        status = execute.run(root, options)
    except VirtError as error:
        is_ours = isinstance(error, (EnterError, UsageError))
        status = error.exit_code if is_ours else EnterError.exit_code
        hint = "" if error.hint is None else f"hint: {error.hint}\n"
        os.write(2, os.fsencode(f"virt: {error.message}\n{hint}"))
    except Exception as error:  # noqa: BLE001  a bug becomes a sentence, as in dispatch
        os.write(2, os.fsencode(f"virt: internal error: {type(error).__name__}: {error}\n"))
    finally:
        os._exit(status)
