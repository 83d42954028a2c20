"""Doer: runs a program in namespaces of its own, from outside: starts it, waits, passes signals on."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import os

from virttools import linux
from virttools.enter import init, inside, mounts, program, signals
from virttools.enter.entrance import Cell, Entrance, cause
from virttools.enter.options import Bind, Options
from virttools.errors import EnterError

# typing costs start-up time; a name in quotes is enough for the type checker
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from virttools.enter.terminal import Terminal

_PASSED_ON = (
    _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1,
    _signal.SIGUSR2, _signal.SIGALRM, _signal.SIGTSTP,
)  # fmt: skip
_KEYS = (_signal.SIGINT, _signal.SIGQUIT)
_TERMINAL_STOPS = (_signal.SIGTTIN, _signal.SIGTTOU)
_NO_PROC = b"virt: there is no /proc inside: this system hides parts of its own (a container?)\n"
_PLAINLY = "--chroot enters without them, and holds less"
_FAILURES = {
    init.NAMESPACES: ("contain", "the kernel gives no namespaces", _PLAINLY),
    init.MOUNTS: (
        "contain",
        "mounts in the tree failed",
        f"--bind needs a place of its kind; {_PLAINLY}",
    ),
    init.FOLDER: ("start", "its working directory is gone", None),
    init.TERMINAL: ("contain", "it gets no terminal", "--no-tty gives it none"),
    init.PRIVILEGES: ("contain", "privileges cannot be dropped", _PLAINLY),
    init.START: ("start", "there is no process for it", None),
}


def enter(entrance: Entrance, options: Options) -> "NoReturn":
    """Run a command contained, as options say, and end as it does: by its status or its signal.

    Raises EnterError where it could not be started.
    """
    domain = options.domain or ""
    located = program.locate(
        entrance.tree_fd, os.fsdecode(entrance.path), entrance.argv, os.fsdecode(entrance.cwd)
    )
    entrance.no_new_privileges = not (options.allows_set_id or located.has_set_id)
    cell = Cell(_clone(entrance.tree_fd, b"", domain), domain)
    cell.is_writable = options.is_writable
    cell.binds = [(_clone_bound(bind), os.fsencode(bind.place)) for bind in options.binds]
    if entrance.is_rootless:
        from virttools.enter import rootless

        rootless.furnish(cell, entrance.tree_fd)
    terminal = _terminal(entrance) if options.has_terminal else None
    if terminal is not None:
        cell.pts_fd, cell.tty_fd = terminal.pts_fd, terminal.tty_fd
        cell.std_fds, cell.is_waiting = terminal.std_fds, terminal.is_waiting
    # Taking the interpreter down in order would cost as much as one more fork.
    os._exit(_run(entrance, cell, located, terminal))


def add_proc(root: str, domain: str) -> int:
    """For a plain chroot: mount proc in the tree, seen by this process only; the tree, opened anew.

    Raises EnterError.
    """
    try:
        linux.unshare(linux.CLONE_NEWNS)
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
        linux.set_mount(root_fd, propagation=linux.MS_PRIVATE)
        os.close(root_fd)
        tree_fd = inside.open_tree(root, domain)
        is_there = mounts.mount_proc(tree_fd)
    except OSError as error:
        raise EnterError(f"cannot mount /proc in {domain}: {error.strerror}") from error
    if not is_there:
        raise EnterError(
            f"cannot mount /proc in {domain}: it has no such folder",
            hint='`directories = ["/proc"]` in its manifest makes one',
        )
    return tree_fd


def _terminal(entrance: Entrance) -> "Terminal | None":
    std_fds = [fd for fd in range(3) if os.isatty(fd)]
    if not std_fds:
        return None
    from virttools.enter import terminal

    user = 0 if entrance.account is None else entrance.account.uid
    group = terminal.TTY_GROUP
    if entrance.is_rootless:
        from virttools.enter import rootless

        group = rootless.tty_group(group)
    try:
        return terminal.Terminal(std_fds, user, group)
    except (OSError, terminal.Error) as error:
        raise EnterError(
            f"cannot make a terminal: {error.args[-1]}", hint="--no-tty does without"
        ) from error


def _clone_bound(bind: Bind) -> int:
    fd = _clone(-1, os.fsencode(os.path.abspath(bind.source)), bind.source)
    if bind.is_read_only:
        linux.set_mount(fd, attributes=linux.MOUNT_ATTR_RDONLY)
    return fd


def _clone(fd: int, path: bytes, place: str) -> int:
    """What lies there, with all that is mounted in it, as a mount that is attached nowhere."""
    try:
        mount_fd = linux.clone_mount(fd, path)
        linux.set_mount(mount_fd, propagation=linux.MS_PRIVATE)
    except OSError as error:
        hint = (
            "this needs CAP_SYS_ADMIN; --chroot enters without it, and holds less"
            if error.errno == 1
            else None
        )
        raise EnterError(
            f"cannot mount {program.shown(place)} inside: {error.strerror}", hint=hint
        ) from error
    return mount_fd


def _run(
    entrance: Entrance, cell: Cell, located: program.Located, terminal: "Terminal | None"
) -> int:
    """Once in a process: its later children would get into the same pid namespace."""
    execution = linux.Execution(located.name, located.argv, entrance.env)
    inner = init.Init(entrance, cell, located.folder, execution, _own_memory())
    reports_fd, cell.report_fd = os.pipe()
    signals.block()
    try:
        linux.unshare(linux.CLONE_NEWPID)
    except OSError as error:
        signals.unblock()
        raise _failure(entrance, init.NAMESPACES, error.errno or 0) from error
    pid = os.fork()
    if pid == 0:
        os.close(reports_fd)
        inner.run()
    os.close(cell.report_fd)
    for fd in (cell.tree_mount_fd, cell.pts_fd, cell.tty_fd, *(fd for fd, _ in cell.binds)):
        if fd >= 0:
            os.close(fd)
    return _Outside(entrance, pid, reports_fd, terminal).wait()


def _own_memory() -> tuple[int, int]:
    """Where the kernel laid this process's arguments and environment: /proc/self/stat (proc(5))."""
    with open("/proc/self/stat", "rb", buffering=0) as file:
        fields = file.read().rpartition(b")")[2].split()
    begin, end = int(fields[45]), int(fields[48])
    return begin, max(0, end - begin)


class _Outside:
    """What is left of us outside while the program runs."""

    __slots__ = ("_entrance", "_failure", "_is_over", "_pid", "_reports_fd", "_status", "_terminal")

    def __init__(
        self, entrance: Entrance, pid: int, reports_fd: int, terminal: "Terminal | None"
    ) -> None:
        self._entrance = entrance
        self._pid = pid
        self._reports_fd = reports_fd
        self._terminal = terminal
        self._failure: tuple[int, int] | None = None
        self._status: int | None = None
        self._is_over = False

    def wait(self) -> int:
        """Serve the program until it has ended; nothing of it is left when this returns."""
        self._listen()
        try:
            if self._terminal is not None:
                self._terminal.begin()
            while not self._is_over:
                if self._terminal is not None:
                    self._terminal.relay(self._reports_fd)
                self._read(os.read(self._reports_fd, 10 * init.REPORT_SIZE))
        finally:
            init_status = self._bury()
            was_raw = self._terminal is not None and self._terminal.end()
        if self._failure is not None:
            raise _failure(self._entrance, *self._failure)
        status = init_status if self._status is None else self._status
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            # In raw mode nobody else in our process group saw the key: a loop in the caller's
            # script would go on after Ctrl-C.
            return signals.die(number, with_group=was_raw and number in _KEYS)
        return os.WEXITSTATUS(status)

    def _bury(self) -> int:
        """End what is left; from then on its number may be anybody's, and nothing is sent there."""
        signals.block()
        os.kill(self._pid, _signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        signals.unblock()
        return status

    def _send(self, number: int) -> None:
        if self._pid:
            os.kill(self._pid, number)

    def _listen(self) -> None:
        """Pass on what somebody sends us, but for what our caller has us ignore (nohup)."""
        for number in _PASSED_ON:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                _signal.signal(number, self._pass_on)
        _signal.signal(_signal.SIGCONT, self._resume)
        if self._terminal is not None:
            _signal.signal(_signal.SIGWINCH, self._terminal.resize)
        signals.unblock()

    def _pass_on(self, number: int, _frame: object) -> None:
        self._send(number)

    def _read(self, reports: bytes) -> None:
        self._is_over = self._is_over or not reports
        for at in range(0, len(reports), init.REPORT_SIZE):
            kind, number = reports[at : at + 1], reports[at + 1]
            value = int.from_bytes(reports[at + 2 : at + init.REPORT_SIZE], "little")
            if kind == init.STOPPED:
                self._stop(number)
            elif kind == init.LACKING:
                os.write(2, _NO_PROC)
            elif kind == init.FAILED:
                self._failure = self._failure or (number, value)
                self._is_over = True
            elif kind == init.ENDED:
                self._status = value
                self._is_over = True

    def _stop(self, number: int) -> None:
        """The program was stopped: for want of the terminal, or so that our caller be stopped too."""
        if self._terminal is not None and number in _TERMINAL_STOPS:
            self._terminal.take()
            self._send(init.TAKE_TERMINAL)
            return
        target = os.getpid()
        if self._terminal is not None and self._terminal.give_back():
            target = 0  # as above: nobody else saw the key
        old = _signal.signal(_signal.SIGTSTP, _signal.SIG_DFL)
        os.kill(target, _signal.SIGTSTP)
        _signal.signal(_signal.SIGTSTP, old)
        self._resume(0, None)

    def _resume(self, _number: int, _frame: object) -> None:
        if self._terminal is None:
            self._send(_signal.SIGCONT)
        elif self._terminal.take_again():
            self._send(init.TAKE_TERMINAL)
        else:
            self._send(init.LEAVE_TERMINAL)


def _failure(entrance: Entrance, step: int, number: int) -> EnterError:
    path = program.shown(os.fsdecode(entrance.path))
    if step == init.PROGRAM:
        return EnterError(f"cannot run {path}: {os.fsdecode(cause(number))}", exit_code=126)
    verb, what, hint = _FAILURES[step]
    return EnterError(f"cannot {verb} {path}: {what}: {os.strerror(number)}", hint=hint)
