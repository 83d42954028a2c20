"""Doer: process 1 of a contained program: starts it, reaps, passes signals on, reports to outside.

From its first line on it makes system calls only: no import, no codec, no look-up (DESIGN 7.4).
"""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import os
from fcntl import ioctl

from virttools import linux
from virttools.enter import inside, mounts, signals
from virttools.enter.confinement import KEPT_CAPABILITIES, confine
from virttools.enter.entrance import Cell, Entrance

NAMESPACES, MOUNTS, FOLDER, PROGRAM, TERMINAL, PRIVILEGES, START = range(7)
"""What can fail; the number is in the report."""

BEGUN, FAILED, STOPPED, ENDED, LACKING = b"B", b"F", b"S", b"E", b"L"
"""Kinds of reports: one of these, a number, and four bytes (errno, or a status as of wait(2))."""
REPORT_SIZE = 6

TAKE_TERMINAL = _signal.SIGRTMIN
LEAVE_TERMINAL = _signal.SIGRTMIN + 1
"""Sent from outside: the program goes on, with the terminal or without it."""

_ONLY_KILL = 1 << linux.CAP_KILL
_NAME = b"virt-init"
_TIOCSCTTY = 0x540E  # asm-generic/ioctls.h
_TO_GROUP = (
    _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTSTP, _signal.SIGCONT,
)  # fmt: skip
"""Signals that a terminal sends to a whole process group."""
_BUG = 131  # ENOTRECOVERABLE


class Init:
    """Made outside; `run` is for the child, with every signal blocked."""

    __slots__ = ("_cell", "_entrance", "_execution", "_folder", "_memory", "_program", "_step")

    def __init__(
        self,
        entrance: Entrance,
        cell: Cell,
        folder: bytes,
        execution: linux.Execution,
        memory: tuple[int, int],
    ) -> None:
        """folder: where the program lies inside. memory: address and size of our words and environment."""
        self._entrance = entrance
        self._cell = cell
        self._folder = folder
        self._execution = execution
        self._memory = memory
        self._program = 0
        self._step = NAMESPACES

    def run(self) -> None:
        """Be process 1. Does not come back."""
        try:
            self._begin()
            while (status := self._wait()) is None:
                pass
            self._report(ENDED, 0, status)
        except OSError as error:
            self._report(FAILED, self._step, error.errno or 0)
        except Exception:  # noqa: BLE001  a bug of ours: never to be taken for the program's status
            self._report(FAILED, self._step, _BUG)
        finally:
            os._exit(0)  # with process 1 the kernel ends all others of its pid namespace

    def _begin(self) -> None:
        linux.set_death_signal(_signal.SIGKILL)
        self._report(BEGUN, 0, 0)  # fails where our parent died before it could be of use
        linux.hide_memory()
        linux.set_name(_NAME)
        linux.overwrite(*self._memory, _NAME)
        os.setsid()
        os.umask(0o022)
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
        linux.sethostname(self._cell.hostname)
        self._step = MOUNTS
        wants_proc = self._cell.has_proc
        mounts.enter(self._cell)
        if wants_proc and not self._cell.has_proc:
            self._report(LACKING, 0, 0)
        tree_fd = self._cell.tree_mount_fd
        self._step = FOLDER
        cwd_fd = inside.open_folder(tree_fd, self._entrance.cwd)
        self._step = PROGRAM
        program_fd = inside.open_folder(tree_fd, self._folder)
        self._start(cwd_fd, program_fd)

    def _start(self, cwd_fd: int, program_fd: int) -> None:
        """Fork into the program and what stays of us."""
        report_fd, tty_fd = self._cell.report_fd, self._cell.tty_fd
        kept_fds = self._entrance.kept_fds
        _close_all_but({0, 1, 2, report_fd, tty_fd, cwd_fd, program_fd, *kept_fds})
        self._step = TERMINAL
        if tty_fd >= 0:
            ioctl(tty_fd, _TIOCSCTTY, 0)
        self._step = PRIVILEGES
        confine()
        linux.set_capabilities(KEPT_CAPABILITIES)
        self._step = START
        self._program = os.fork()
        if self._program == 0:
            self._become(cwd_fd, program_fd)
        try:  # noqa: SIM105  contextlib would be loaded before every command
            os.setpgid(self._program, self._program)
        except OSError:
            pass  # it was faster: it does the same, and may run the program already
        _close_all_but({report_fd, tty_fd})
        linux.set_capabilities(_ONLY_KILL)

    def _become(self, cwd_fd: int, program_fd: int) -> None:
        """In the child: become the program. Does not come back."""
        try:
            self._dress(cwd_fd)
            self._step = PROGRAM
            self._execution.begin(program_fd)
        except OSError as error:
            self._report(FAILED, self._step, error.errno or 0)
        except Exception:  # noqa: BLE001  as above
            self._report(FAILED, self._step, _BUG)
        finally:
            os._exit(125)

    def _dress(self, cwd_fd: int) -> None:
        entrance, cell = self._entrance, self._cell
        os.setpgid(0, 0)
        if cell.tty_fd >= 0:
            if not cell.is_waiting:
                os.tcsetpgrp(cell.tty_fd, os.getpid())
            for fd in cell.std_fds:
                os.dup2(cell.tty_fd, fd)
        linux.close_range_cloexec(3)
        for fd in entrance.kept_fds:
            os.set_inheritable(fd, True)
        os.fchdir(cwd_fd)
        self._step = PRIVILEGES
        if entrance.no_new_privileges:
            linux.set_no_new_privileges()
        if entrance.account is not None:
            if entrance.may_set_groups:
                os.setgroups(entrance.account.groups)
            os.setgid(entrance.account.gid)
            os.setuid(entrance.account.uid)
        signals.reset()

    def _wait(self) -> int | None:
        """Wait for one signal and serve it; the program's status where it has ended."""
        found = _signal.sigwaitinfo(signals.EVERY)
        if found.si_signo == _signal.SIGCHLD:
            return self._reap()
        if found.si_pid == 0:  # from outside of this pid namespace
            self._pass_on(found.si_signo)
        return None

    def _reap(self) -> int | None:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return None
            if pid == self._program:
                if not os.WIFSTOPPED(status):
                    return status
                self._report(STOPPED, os.WSTOPSIG(status), 0)

    def _pass_on(self, number: int) -> None:
        target = -self._program if number in _TO_GROUP else self._program
        try:
            if number in (TAKE_TERMINAL, LEAVE_TERMINAL):
                self._give_terminal(is_program=number == TAKE_TERMINAL)
                number, target = _signal.SIGCONT, -self._program
            os.kill(target, number)
        except OSError:
            pass  # it has just ended

    def _give_terminal(self, *, is_program: bool) -> None:
        if self._cell.tty_fd >= 0:
            os.tcsetpgrp(self._cell.tty_fd, self._program if is_program else os.getpid())

    def _report(self, kind: bytes, number: int, value: int) -> None:
        os.write(self._cell.report_fd, kind + bytes((number,)) + value.to_bytes(4, "little"))


def _close_all_but(kept_fds: set[int]) -> None:
    first = 0
    for fd in sorted(kept_fds):
        if fd > first:
            os.closerange(first, fd)
        first = max(first, fd + 1)
    os.closerange(first, 2**31 - 1)
