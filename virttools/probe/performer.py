"""Doer: a service's program inside a tree, for a trial: one process for each connection, as a server has it.

It is pid 1 of a pid namespace: with it, all that it started ends.
"""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import os
import resource
import select
import socket

from virttools import linux
from virttools.enter import nothing, signals
from virttools.serve import jail, ucspi
from virttools.serve.board import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_REAPS = 50
"""Milliseconds between two looks for programs that have ended."""


class Performer:
    """Made outside; `run` is for the child. listener: given connection by connection, or (waits) itself.

    listener None: the program is a daemon, which listens by itself and is started at once; what it
    says goes to said_fd.
    """

    __slots__ = (
        "_listener", "_mount_fd", "_null_fd", "_report_fd", "_said_fd", "_target", "_waits",
    )  # fmt: skip

    def __init__(
        self,
        target: Target,
        mount_fd: int,
        listener: socket.socket | None,
        report_fd: int,
        said_fd: int,
        *,
        waits: bool = False,
    ) -> None:
        self._target = target
        self._mount_fd = mount_fd
        self._listener = listener
        self._report_fd = report_fd
        self._said_fd = said_fd
        self._waits = waits

    def run(self) -> "NoReturn":
        """Enter, and perform until killed. From the entrance on, system calls only (DESIGN 7.4)."""
        try:
            linux.set_death_signal(_signal.SIGKILL)
            os.umask(0o022)
            os.setsid()
            linux.hide_memory()
            self._null_fd = nothing.open_null()
            jail.confine()
            jail.enter(self._mount_fd, jail.hostname(self._target.place.hostname))
            self._perform()
        except OSError as error:
            self._tell(b"stage %d" % (error.errno or 0))
        finally:
            os._exit(70)

    def _perform(self) -> None:
        listener = self._listener
        if listener is None or self._waits:
            main = self._start(-1 if listener is None else listener.fileno(), {})
            while True:
                self._reap(main)
                select.select((), (), (), _REAPS / 1000)
        poll = select.poll()
        poll.register(listener.fileno(), select.POLLIN)
        while True:
            self._reap()
            if poll.poll(_REAPS):
                connection, remote = listener.accept()
                local = connection.getsockname()
                self._start(connection.fileno(), ucspi.variables("TCP", local[:2], remote[:2]))
                connection.close()

    def _reap(self, main: int = 0) -> None:
        """Tell of all that have ended. main: the daemon, whose end is that of the trial."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._tell(b"ended %d" % os.waitstatus_to_exitcode(status))
            if pid == main:
                self._tell(b"over 0")

    def _start(self, fd: int, more: dict[bytes, bytes]) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 126
        try:
            self._become(fd, {**self._target.env, **more})
        except OSError as error:
            self._tell(b"start %d" % (error.errno or 0))
        finally:
            os._exit(status)

    def _become(self, fd: int, env: dict[bytes, bytes]) -> None:
        target = self._target
        os.setpgid(0, 0)
        places = (fd, fd, fd)
        if fd < 0:
            places = (self._null_fd, self._said_fd, self._said_fd)
        for number, place in enumerate(places):
            os.dup2(place, number)
        linux.close_range_cloexec(3)
        signals.reset()
        for number, most in target.rlimits:
            resource.setrlimit(number, (most, most))
        if target.nice:
            os.setpriority(os.PRIO_PROCESS, 0, target.nice)
        if target.ids is not None:
            os.setgroups(target.ids.groups)
            os.setresgid(target.ids.gid, target.ids.gid, target.ids.gid)
            os.setresuid(target.ids.uid, target.ids.uid, target.ids.uid)
        if target.banner and self._listener is not None:
            os.write(0, target.banner)
        os.execve(target.path, target.argv, env)

    def _tell(self, line: bytes) -> None:
        os.write(self._report_fd, line + b"\n")
