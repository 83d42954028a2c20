"""Doer: process 1 of a daemon: starts it in its domain, passes on what it says, reaps, ends it when told to.

Once it is in the domain it makes system calls only: no import, no codec, no look-up (DESIGN 7.4).
When it ends, the kernel ends all that the daemon has left behind.
"""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import os
import resource
import select
import time

from virttools import linux
from virttools.enter import nothing, signals
from virttools.enter.confinement import KEPT_CAPABILITIES
from virttools.serve import jail
from virttools.serve.board import Daemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

STARTED, FAILED, ENDED = b"S", b"F", b"E"
"""Kinds of reports. FAILED: a step and an errno; ENDED: a status as of wait(2), whether others ran on, last words."""
TREE, ENTRANCE, RIGHTS, PROGRAM = range(4)
"""What can fail."""
STOP = b"stop"

_STALE = 116  # ESTALE
_ONLY_KILL = 1 << linux.CAP_KILL
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOG, _INFO = b"/dev/log", b"<30>"  # daemon.info, syslog(3)
_LONGEST_LINE = 1000
_LAST_WORDS = 200


def become(daemon: Daemon, control: _socket.socket) -> "NoReturn":
    """Be process 1 of a daemon, in a fresh process that has its parent's signals blocked."""
    try:
        _signal.set_wakeup_fd(-1)
        control_fd = os.dup2(control.fileno(), 3, inheritable=False)
        os.closerange(4, 1 << 20)
        _Keeper(daemon, _socket.socket(fileno=control_fd)).run()
    finally:
        os._exit(0)


class _Keeper:
    def __init__(self, daemon: Daemon, control: _socket.socket) -> None:
        self._daemon = daemon
        self._control = control
        self._mark = _INFO + os.fsencode(daemon.name) + b": "
        self._kept = b""
        self._said = b""
        self._deadline = 0.0
        self._is_stopping = self._is_alone = False
        self._pid = 0
        self._status: int | None = None
        self._step = TREE
        _empty_standard()
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        self._ended_fd = linux.signalfd(_signal.SIGCHLD)
        self._log = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)

    def run(self) -> None:
        try:
            self._begin()
        except OSError as error:
            self._fail(error)
            return
        status = self._watch()
        self._listen()
        self._say(b"")
        report = ENDED + status.to_bytes(4, "little") + (b"\0" if self._is_alone else b"\1")
        self._tell(report + self._said[-_LAST_WORDS:])

    def _begin(self) -> None:
        os.setsid()
        os.umask(0o022)
        linux.hide_memory()
        linux.set_name(b"virt-keeper")
        self._enter()
        self._step = RIGHTS
        self._pid = os.fork()
        if self._pid == 0:
            self._become_program()
        os.close(self._write_fd)
        linux.set_capabilities(_ONLY_KILL)

    def _enter(self) -> None:
        """Enter the tree that was looked at; another one may lie there by now."""
        place = self._daemon.place
        tree_fd = os.open(os.fsencode(place.folder), _FOLDER)
        seen = os.fstat(tree_fd)
        if (seen.st_dev, seen.st_ino) != place.identity:
            raise OSError(_STALE, "")
        self._step = ENTRANCE
        linux.unshare(linux.CLONE_NEWIPC)
        if place.isolation == "chroot":
            linux.chroot_fd(tree_fd)
        else:
            clone_fd = jail.clone(tree_fd)
            jail.confine()
            jail.enter(clone_fd, jail.hostname(place.hostname))
            os.close(clone_fd)
        os.close(tree_fd)

    def _become_program(self) -> "NoReturn":
        daemon = self._daemon
        try:
            os.setsid()
            os.dup2(self._write_fd, 1)
            os.dup2(self._write_fd, 2)
            self._drop()
            self._step = PROGRAM
            self._tell(STARTED)
            signals.reset()
            os.execve(daemon.path, daemon.argv, daemon.env)
        except OSError as error:
            self._fail(error)
        finally:
            os._exit(127)

    def _drop(self) -> None:
        daemon = self._daemon
        for number, most in daemon.rlimits:
            resource.setrlimit(number, (most, most))
        if daemon.nice:
            os.setpriority(os.PRIO_PROCESS, 0, daemon.nice)
        if daemon.place.isolation != "chroot":
            linux.set_capabilities(KEPT_CAPABILITIES)
        if daemon.ids is not None:
            os.setgroups(daemon.ids.groups)
            os.setresgid(daemon.ids.gid, daemon.ids.gid, daemon.ids.gid)
            os.setresuid(daemon.ids.uid, daemon.ids.uid, daemon.ids.uid)

    # ---- while it runs

    def _watch(self) -> int:
        """Until the program has ended, and what it has left, if it was told to; its status as of wait(2)."""
        poll = select.poll()
        for fd in (self._ended_fd, self._read_fd, self._control.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll(self._patience()):
                if fd == self._ended_fd:
                    os.read(fd, 1024)
                    self._reap()
                elif fd == self._read_fd:
                    if not self._listen():
                        poll.unregister(fd)
                else:
                    poll.unregister(fd)
                    self._stop()
            if self._status is not None and (self._is_alone or not self._is_stopping):
                return self._status
            if self._deadline and time.monotonic() >= self._deadline:
                self._deadline = 0.0
                _kill(-1, _signal.SIGKILL)

    def _patience(self) -> int | None:
        if not self._deadline:
            return None
        return max(0, int((self._deadline - time.monotonic()) * 1000) + 1)

    def _stop(self) -> None:
        """Told to stop, or nobody is left who could tell it."""
        try:  # noqa: SIM105  contextlib would be loaded for it
            self._control.recv(len(STOP))  # what is left unread would reset the connection
        except OSError:
            pass  # the server is gone
        self._is_stopping = True
        self._deadline = time.monotonic() + self._daemon.stop_seconds
        _kill(self._pid, self._daemon.stop_signal)
        _kill(self._pid, _signal.SIGCONT)

    def _reap(self) -> None:
        """Reap all that has ended, orphans too; what outlives a program that was told to end is told, too."""
        had_ended = self._status is not None
        while not self._is_alone:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._is_alone = True
                break
            if pid == 0:
                break
            if pid == self._pid:
                self._status = status
        if self._is_stopping and not had_ended and self._status is not None:
            _kill(-1, _signal.SIGTERM)

    # ---- what it says

    def _listen(self) -> bool:
        """Pass on what it has written; False where nobody can write any more."""
        try:
            text = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return True
        lines = (self._kept + text).split(b"\n")
        self._kept = lines.pop()
        for line in lines:
            self._say(line)
        if len(self._kept) > _LONGEST_LINE:
            self._say(b"")
        return bool(text)

    def _say(self, line: bytes) -> None:
        """One line to the domain's own log, which may be slow or absent; "" stands for what is kept."""
        if not line:
            line, self._kept = self._kept, b""
        if not line.strip():
            return
        self._said = line
        try:
            self._log.sendto(self._mark + line[:_LONGEST_LINE], _socket.MSG_DONTWAIT, _LOG)
        except OSError:
            return

    def _fail(self, error: OSError) -> None:
        self._tell(FAILED + bytes((self._step,)) + (error.errno or 0).to_bytes(4, "little"))

    def _tell(self, report: bytes) -> None:
        try:
            self._control.send(report, _socket.MSG_NOSIGNAL)
        except OSError:
            return  # the server is gone


def _empty_standard() -> None:
    """Let 0, 1 and 2 be a null device: a pipe's end would be a sign for smbd to end."""
    null_fd = nothing.open_null()
    for fd in range(3):
        os.dup2(null_fd, fd)
    os.close(null_fd)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return  # it has just ended
