"""Doer: keeps the listeners, the namespaces and the spawners; reloads, drains, and hands over to a successor."""

import _pickle  # pickle loads re
import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import marshal
import os
import select
import sys
import time

from virttools import linux
from virttools.errors import VirtError
from virttools.serve import ledger, listening, loading, spawner
from virttools.serve.acceptor import Work
from virttools.serve.board import Board, Endpoint
from virttools.serve.journal import ERROR, INFO, NOTICE, WARNING, Journal
from virttools.serve.ledger import Ledger, Rows
from virttools.serve.namespaces import Home
from virttools.serve.notify import Notifier, listen_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STATE = "VIRT_SERVESTATE"
_REPLACE = 0  # no signal: a spawner has died
_READY_SECONDS = 30.0
_RESTART_SECONDS = 1.0
_STALE_SECONDS = 5.0
_FOLDER = os.O_PATH | os.O_DIRECTORY
_SIGNALS = (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGINT, _signal.SIGUSR2, _signal.SIGCHLD)


class Settings:
    """How to serve. read: what is declared now; control: the path of the status socket.

    successor: the command that SIGUSR2 replaces this one by, and what checks it beforehand.
    """

    __slots__ = ("check", "control", "cores", "drain_seconds", "journal", "read", "successor")

    def __init__(
        self,
        read: "Callable[[], Board]",
        *,
        control: str,
        cores: int,
        drain_seconds: int,
        journal: Journal,
        successor: list[str],
        check: list[str],
    ) -> None:
        self.read = read
        self.control = control
        self.cores = cores
        self.drain_seconds = drain_seconds
        self.journal = journal
        self.successor = successor
        self.check = check


class Child:
    """A spawner: its end of the control socket, and what it has said so far."""

    __slots__ = (
        "control",
        "is_draining",
        "is_ready",
        "is_silent",
        "is_stopped",
        "is_waiting",
        "pid",
    )

    def __init__(self, pid: int, control: _socket.socket, *, is_waiting: bool) -> None:
        self.pid = pid
        self.control = control
        self.is_waiting = is_waiting
        self.is_ready = False
        self.is_silent = False
        self.is_stopped = False
        self.is_draining = False


class Supervisor:
    """One thread, one loop; everything it knows can be handed over by `_hand_over`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._journal = settings.journal
        self._home = Home()
        self._pid_fd = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._board = Board()
        self._ledger: Ledger
        self._rows = Rows()
        self._sockets: dict[listening.Key, _socket.socket] = {}
        self._namespaces: dict[loading.Key, tuple[int, int]] = {}
        self._children: dict[int, Child] = {}
        self._control: _socket.socket
        self._notifier = Notifier(os.environ)
        self._started = time.monotonic()
        self._reloads = self._failed_reloads = 0
        self._asked: list[int] = []
        self._stale_at = 0.0
        self._poll = select.poll()
        self._wake_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in _SIGNALS:
            _signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self._asked.append(number)

    def run(self) -> int:
        """Serve until told to end. Raises VirtError where it cannot begin."""
        os.chdir("/")
        is_successor = self._take_over()
        if not is_successor:
            self._ledger = Ledger()
            self._take_passed()
            self._control = self._open_control()
        self._poll.register(self._wake_fd, select.POLLIN)
        if self._settings.control:
            self._poll.register(self._control.fileno(), select.POLLIN)
        self._load()
        self._notifier.ready(self._summary())
        self._journal.write(INFO, f"ready: {self._summary()}")
        while True:
            self._wait(0.0 if self._asked else None)
            for number in self._take_asked():
                if number in (_signal.SIGTERM, _signal.SIGINT):
                    return self._end()
                if number == _signal.SIGHUP:
                    self.reload()
                elif number == _signal.SIGUSR2:
                    self._hand_over()
                elif number == _REPLACE:
                    self._replace()

    def _take_asked(self) -> list[int]:
        asked, self._asked = self._asked, []
        return list(dict.fromkeys(asked))

    def _wait(self, seconds: float | None) -> None:
        """Sleep until something happens, and attend to what is not a request by signal."""
        self._journal.flush()
        wait = None if seconds is None else max(0, int(seconds * 1000))
        controls = {child.control.fileno(): child for child in self._children.values()}
        for fd, _ in self._poll.poll(wait):
            if fd == self._wake_fd:
                os.read(fd, 4096)
                self._reap()
            elif fd == self._control.fileno():
                self._tell_status()
            elif fd in controls:
                self._hear(controls[fd])

    # ---- what is served

    def reload(self) -> None:
        """Serve what is declared now; keep the old set, whole, where that is wrong."""
        self._notifier.reloading(time.monotonic_ns() // 1000)
        try:
            self._load()
            self._reloads += 1
            self._journal.write(NOTICE, f"reloaded: {self._summary()}")
        except VirtError as error:
            self._failed_reloads += 1
            self._tell_error("cannot reload, the old set stays", error)
        self._notifier.ready(self._summary())

    def _tell_error(self, what: str, error: VirtError) -> None:
        self._journal.write(ERROR, f"{what}: {error.message}")
        for problem in getattr(error, "problems", ()):
            self._journal.write(ERROR, str(problem))

    def _load(self) -> None:
        there = frozenset(self._namespaces)
        loaded = loading.load(self._settings.read, self._home, there)
        opened: dict[listening.Key, _socket.socket] = {}
        try:
            for endpoint in loaded.board.endpoints:
                if endpoint.key() not in self._sockets:
                    opened[endpoint.key()] = listening.listen(endpoint)
        except VirtError:
            for socket in opened.values():
                socket.close()
            raise
        for note in loaded.board.notes:
            self._journal.write(WARNING, note)
        linux.trim_memory()
        self._namespaces.update(loaded.namespaces)
        self._sockets.update(opened)
        before, self._board = self._board, loaded.board
        try:
            self._renew()
        except VirtError:
            self._board = before
            raise
        finally:
            self._close_unused()

    def _renew(self) -> None:
        """Start spawners for the board, and only when they accept have the old ones drain."""
        old = [child for child in self._children.values() if not child.is_draining]
        started = self._start_all()
        deadline = time.monotonic() + _READY_SECONDS
        while not all(child.is_ready for child in started):
            if time.monotonic() > deadline or not all(one.pid in self._children for one in started):
                for child in started:
                    self._drain(child)
                raise VirtError("cannot start spawners: they end at once, the log says why")
            self._wait(0.1)
        for child in old:
            self._drain(child)

    def _close_unused(self) -> None:
        """Close what the board needs no more, unless a spawner of the last one still relies on it.

        The number of a namespace that is closed may become another domain's.
        """
        if any(one.is_draining and not one.is_stopped for one in self._children.values()):
            return
        wanted = {endpoint.key() for endpoint in self._board.endpoints}
        for key in [key for key in self._sockets if key not in wanted]:
            self._sockets.pop(key).close()
        places = {target.place.key() for target in self._board.targets}
        for place in [place for place in self._namespaces if place not in places]:
            for fd in self._namespaces.pop(place):
                os.close(fd)

    def _summary(self) -> str:
        count = len({target.place.domain for target in self._board.targets if target.place.domain})
        return f"{len(self._board.endpoints)} endpoints, {count} domains"

    # ---- spawners

    def _start_all(self) -> list[Child]:
        shared = [endpoint for endpoint in self._board.endpoints if not endpoint.is_wait]
        alone = [endpoint for endpoint in self._board.endpoints if endpoint.is_wait]
        rows = self._assign()
        started = [self._start(shared, rows) for _ in range(self._settings.cores if shared else 0)]
        if alone or any(target.every for target in self._board.targets):
            started.append(self._start(alone, rows, is_waiting=True))
        return started

    def _assign(self) -> list[int]:
        """A row for each target, and the last one for what belongs to none."""
        names = [target.name for target in self._board.targets]
        return self._rows.assign(self._ledger, [*names, ""])

    def _start(
        self, endpoints: list[Endpoint], rows: list[int], *, is_waiting: bool = False
    ) -> Child:
        ours, theirs = _socket.socketpair(
            _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        )
        supervisor = os.getpid()
        linux.unshare(linux.CLONE_NEWPID)
        try:
            pid = os.fork()
        finally:
            if os.getpid() == supervisor:
                linux.setns(self._pid_fd, linux.CLONE_NEWPID)
        if pid == 0:
            self._become_spawner(endpoints, rows, theirs, supervisor, is_waiting=is_waiting)
        theirs.close()
        child = self._children[pid] = Child(
            pid, _socket.socket(fileno=ours.detach()), is_waiting=is_waiting
        )
        self._poll.register(child.control.fileno(), select.POLLIN)
        return child

    def _become_spawner(
        self,
        endpoints: list[Endpoint],
        rows: list[int],
        control: _socket.socket,
        supervisor: int,
        *,
        is_waiting: bool,
    ) -> None:
        try:
            for number in _SIGNALS:
                _signal.signal(number, _signal.SIG_DFL)
            folder_fd = os.open(f"/proc/{supervisor}/fd", _FOLDER)
            sockets = [(endpoint, self._sockets[endpoint.key()]) for endpoint in endpoints]
            home = self._home
            kept = [
                control.fileno(),
                folder_fd,
                self._journal.fd,
                self._ledger.fd,
                self._ledger.map_fd,
            ]
            kept += [home.mount_fd, home.uts_fd, home.root_fd]
            kept += [socket.fileno() for _, socket in sockets]
            _close_others(kept)
            work = self._work(sockets, rows, control, folder_fd, runs_jobs=is_waiting)
            spawner.run(work)
        finally:
            os._exit(70)

    def _work(
        self,
        sockets: list[tuple[Endpoint, _socket.socket]],
        rows: list[int],
        control: _socket.socket,
        folder_fd: int,
        *,
        runs_jobs: bool,
    ) -> Work:
        return Work(
            self._board,
            sockets,
            rows=rows,
            namespaces=[
                _numbers(self._namespaces.get(target.place.key())) for target in self._board.targets
            ],
            counts=self._ledger,
            journal=self._journal,
            home=self._home,
            descriptors_fd=folder_fd,
            control=control,
            runs_jobs=runs_jobs,
        )

    def _drain(self, child: Child) -> None:
        child.is_draining = True
        _tell(child, b"drain")

    def _hear(self, child: Child) -> None:
        try:
            word = child.control.recv(4096, _socket.MSG_DONTWAIT)
        except OSError:
            return
        if not word:
            child.is_silent = True
            self._poll.unregister(child.control.fileno())
        elif word == b"ready":
            child.is_ready = True
        elif word == b"stopped":
            child.is_stopped = True
            self._close_unused()
        elif word == b"free":
            for other in self._children.values():
                if other.is_waiting and not other.is_draining:
                    _tell(other, b"free")
        elif word.startswith(b"stale "):
            self._look_at(word[6:].decode("utf-8", "replace"))

    def _look_at(self, domain: str) -> None:
        """A program was not there: reload if the tree is another than the one its namespace was built of."""
        now = time.monotonic()
        if now < self._stale_at:
            return
        self._stale_at = now + _STALE_SECONDS
        for target in self._board.targets:
            place = target.place
            if place.domain == domain and place.isolation == "namespace":
                try:
                    found = os.lstat(place.folder)
                except OSError:
                    continue
                if (found.st_dev, found.st_ino) != place.identity:
                    self._asked.append(_signal.SIGHUP)
                    return

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            self._forget(child)
            if child.is_ready and not child.is_draining:
                status = os.waitstatus_to_exitcode(status)
                self._journal.write(ERROR, f"a spawner ended with status {status}: starting anew")
                self._asked.append(_REPLACE)

    def _forget(self, child: Child) -> None:
        if not child.is_silent:
            self._poll.unregister(child.control.fileno())
        child.control.close()

    def _replace(self) -> None:
        """A spawner died, and its pid namespace with it: what it counted as live is no more."""
        time.sleep(_RESTART_SECONDS)
        fresh = Ledger()
        for number in self._rows.numbers.values():
            fresh.take(number, self._ledger)
        self._ledger.close()
        self._ledger = fresh
        try:
            self._renew()
        except VirtError as error:
            self._tell_error("cannot serve", error)
            self._asked.append(_REPLACE)

    # ---- the end, and a successor

    def _end(self) -> int:
        """Take no more, wait for what runs, and end; what has not ended by then is killed."""
        self._notifier.stopping("draining")
        self._journal.write(NOTICE, "draining")
        for child in self._children.values():
            if not child.is_draining:
                self._drain(child)
        deadline = time.monotonic() + self._settings.drain_seconds
        while self._children and time.monotonic() < deadline:
            self._wait(deadline - time.monotonic())
            if {_signal.SIGTERM, _signal.SIGINT} & set(self._take_asked()):
                break
        for child in self._children.values():
            os.kill(child.pid, _signal.SIGKILL)
        while self._children:
            self._wait(1.0)
        if self._settings.control:
            _remove(self._settings.control)
        self._journal.write(NOTICE, "ended")
        self._journal.flush()
        return 0

    def _hand_over(self) -> None:
        """Become the program as it is installed now: listeners, connections and counts stay."""
        pid = os.posix_spawn(self._settings.check[0], self._settings.check, os.environ)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) not in (0, 1):  # 1: some domain is left out, as now
            self._failed_reloads += 1
            self._journal.write(
                ERROR, "cannot upgrade: the new program does not accept what is declared"
            )
            return
        state_fd = self._write_state()
        environ = {**os.environ, **self._notifier.environment(), STATE: str(state_fd)}
        self._journal.flush()
        for number in _SIGNALS:  # between the two, none may end us
            _signal.signal(number, _signal.SIG_IGN)
        os.execve(self._settings.successor[0], self._settings.successor, environ)

    def _write_state(self) -> int:
        """What a successor needs, in memory, and every descriptor that it names left open for it."""
        state_fd = os.memfd_create("virt-serve-state", 0)
        state = {
            "ledger": self._ledger.fd,
            "rows": (self._rows.numbers, self._rows.spare),
            "sockets": {key: socket.fileno() for key, socket in self._sockets.items()},
            "namespaces": self._namespaces,
            "children": [
                (
                    child.pid,
                    child.control.fileno(),
                    child.is_waiting,
                    child.is_draining,
                    child.is_stopped,
                )
                for child in self._children.values()
            ],
            "control": self._control.fileno(),
            "counts": (self._started, self._reloads, self._failed_reloads),
        }
        os.write(state_fd, _pickle.dumps(state))
        fds = [state_fd, self._ledger.fd, self._control.fileno()]
        fds += [socket.fileno() for socket in self._sockets.values()]
        fds += [fd for pair in self._namespaces.values() for fd in pair]
        fds += [child.control.fileno() for child in self._children.values()]
        for fd in fds:
            os.set_inheritable(fd, True)
        return state_fd

    def _take_over(self) -> bool:
        """Take what a predecessor in this process left; whether there was one."""
        number = os.environ.pop(STATE, "")
        if not number:
            return False
        state_fd = int(number)
        with open(state_fd, "rb") as file:
            file.seek(0)
            state = _pickle.loads(file.read())
        self._ledger = Ledger(state["ledger"])
        self._rows.numbers, self._rows.spare = state["rows"]
        self._sockets = {key: _socket.socket(fileno=fd) for key, fd in state["sockets"].items()}
        self._namespaces = state["namespaces"]
        self._control = _socket.socket(fileno=state["control"])
        self._started, self._reloads, self._failed_reloads = state["counts"]
        for pid, fd, is_waiting, is_draining, is_stopped in state["children"]:
            child = Child(pid, _socket.socket(fileno=fd), is_waiting=is_waiting)
            child.is_ready, child.is_draining, child.is_stopped = True, is_draining, is_stopped
            self._children[pid] = child
            self._poll.register(fd, select.POLLIN)
        linux.close_range_cloexec(3)
        return True

    def _take_passed(self) -> None:
        try:
            told = listen_fds(os.environ, os.getpid())
        except ValueError as error:
            self._journal.write(WARNING, str(error))
            told = []
        linux.close_range_cloexec(3)
        for fd, name in told:
            found = listening.passed(fd)
            if found is None:
                self._journal.write(WARNING, f"descriptor {fd} ({name}) is no socket to listen on")
            else:
                self._sockets[found[0]] = found[1]

    # ---- status

    def _open_control(self) -> _socket.socket:
        path = self._settings.control
        found = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        if not path:
            return found
        _remove(path)
        folder, _, name = path.rpartition("/")
        folder_fd = os.open(folder, _FOLDER)
        old = os.umask(0o177)
        try:  # sun_path is short, unix(7)
            found.bind(f"/proc/self/fd/{folder_fd}/{name}")
        finally:
            os.umask(old)
            os.close(folder_fd)
        found.listen(16)
        found.setblocking(False)
        return found

    def _tell_status(self) -> None:
        try:
            fd, _ = self._control._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:
            return
        connection = _socket.socket(fileno=fd)
        try:
            connection.settimeout(1.0)
            connection.sendall(self._status())
        except OSError:
            pass  # it did not wait for the answer
        finally:
            connection.close()

    def _status(self) -> bytes:
        """What happens now, in a form that `virt serve --status` puts into words."""
        rows = self._assign()
        places: dict[int, list[str]] = {}
        for endpoint in self._board.endpoints:
            for position in {*endpoint.targets.values(), endpoint.default}:
                if position is not None:
                    places.setdefault(position, []).append(str(endpoint))
        return marshal.dumps(
            (
                os.getpid(),
                time.monotonic() - self._started,
                [child.pid for child in self._children.values() if not child.is_draining],
                (self._reloads, self._failed_reloads, self._ledger.row(rows[-1])[ledger.FAILED]),
                [
                    (
                        target.service,
                        target.place.domain,
                        target.every,
                        places.get(at, []),
                        self._ledger.row(row),
                    )
                    for at, (target, row) in enumerate(zip(self._board.targets, rows, strict=False))
                ],
            )
        )


def _numbers(pair: tuple[int, int] | None) -> tuple[str, str]:
    return ("", "") if pair is None else (str(pair[0]), str(pair[1]))


def _tell(child: Child, word: bytes) -> None:
    try:
        child.control.send(word, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    except OSError:
        return  # it is gone, and will be reaped


def _close_others(kept: list[int]) -> None:
    start = 3
    for fd in sorted(fd for fd in kept if fd >= 3):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 1 << 20)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def own_command() -> list[str]:
    """The command line that started this process, as it can be run from any folder."""
    words = [os.path.abspath(word) if "/" in word else word for word in sys.orig_argv[1:]]
    return [sys.executable, *words]
