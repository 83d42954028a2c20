"""Doer: the loop of the server: reloads, drains, replaces what died, and hands over to a successor."""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import os
import select
import time

from virttools import linux
from virttools.errors import VirtError
from virttools.serve import control, loading, successor
from virttools.serve.asking import LEAVE, LOOK, RELOAD
from virttools.serve.children import CHANGED, REPLACE, SIGNALS, Child, Children
from virttools.serve.daemons import Fleet
from virttools.serve.following import Calm, Watch
from virttools.serve.holdings import Holdings
from virttools.serve.journal import ERROR, INFO, NOTICE, TRIED_AGAIN, WARNING, Journal
from virttools.serve.notify import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from virttools.serve.board import Board

_READY_SECONDS = 30.0
_STOPPED_SECONDS = 6.0
_RESTART_SECONDS = 1.0


class Settings:
    """How to serve. read: what is declared now; control: the path of the status socket.

    successor: the command that SIGUSR2 replaces this one by, and what checks it beforehand.
    followed: folders in which a change of names may be one of what is declared, the root first.
    left: domains that are not to be served, by name with device and inode of their trees.
    """

    __slots__ = (
        "check", "control", "cores", "drain_seconds", "followed", "journal", "left", "read",
        "successor",
    )  # fmt: skip

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
        followed: tuple[str, ...] = (),
    ) -> None:
        self.read = read
        self.control = control
        self.cores = cores
        self.drain_seconds = drain_seconds
        self.journal = journal
        self.successor = successor
        self.check = check
        self.followed = followed
        self.left: dict[str, tuple[int, int]] = {}


class Supervisor:
    """One thread, one loop; everything it knows can be handed over by `_hand_over`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._journal = settings.journal
        self._held = Holdings(settings.journal)
        self._poll = select.poll()
        self._asked: list[int] = []
        self._children = Children(self._held, self._poll, self._asked.append)
        self._fleet = Fleet(self._poll, settings.journal, self._held.give_room_back)
        self._watch = Watch(settings.followed)
        self._calm = Calm()
        self._unheard = self._trouble = ""
        self._is_reloading = False
        self._digest = b""
        self._replaced = -_RESTART_SECONDS
        self._replace_at: float | None = None
        self._control: _socket.socket
        self._notifier = Notifier(os.environ)
        self._started = time.monotonic()
        self._reloads = self._failed_reloads = 0
        self._wake_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in SIGNALS:
            _signal.signal(number, self._note)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)  # a predecessor has blocked them

    def _note(self, number: int, _: object) -> None:
        self._asked.append(number)

    def run(self) -> int:
        """Serve until told to end. Raises VirtError where it cannot begin."""
        os.chdir("/")
        self._begin()
        self._load_first()
        self._notifier.ready(str(self._held))
        self._journal.write(INFO, f"ready: {self._held}")
        while True:
            self._wait(0.0 if self._asked else self._patience())
            self._fleet.tend(time.monotonic())
            self._ask_what_is_due(time.monotonic())
            for number in self._take_asked():
                if number in (_signal.SIGTERM, _signal.SIGINT):
                    return self._end()
                if number == _signal.SIGHUP:
                    self._settings.left.clear()
                    self.reload()
                elif number == _signal.SIGUSR2:
                    self._hand_over()
                elif number == REPLACE:
                    self._replace()
                elif number == CHANGED:
                    self.reload(unless_same=True)
            if self._children.has_freed:  # here: not while another set is only being started
                self._children.release()

    def _begin(self) -> None:
        """With what a predecessor left, or with nothing."""
        left = successor.take(self._held, self._children, self._fleet)
        if left is None:
            self._held.begin()
            self._control = control.open_at(self._settings.control)
        else:
            self._control, (self._started, self._reloads, self._failed_reloads) = left
        self._held.make_room()
        self._poll.register(self._wake_fd, select.POLLIN)
        if self._settings.control:
            self._poll.register(self._control.fileno(), select.POLLIN)

    def _load_first(self) -> None:
        """Raises VirtError, but not as a successor that knows what is served: that goes on."""
        try:
            self._load()
        except VirtError as error:
            if not self._held.board.endpoints:
                raise
            self._failed_reloads += 1
            self._tell_error("cannot reload, the old set stays", error)
            self._fleet.want(self._held.board.daemons, is_asked=False)

    def _take_asked(self) -> list[int]:
        asked = list(dict.fromkeys(self._asked))
        self._asked.clear()
        return asked

    def _patience(self) -> float | None:
        """Seconds until something is due; None: nothing is, and nothing wakes us up."""
        now = time.monotonic()
        times = (self._calm.due(self._children.draining()), self._replace_at)
        waits = [max(0.0, due - now) for due in times if due is not None]
        if self._journal.is_behind():
            waits.append(TRIED_AGAIN)
        fleet = self._fleet.patience()
        return min(waits if fleet is None else [*waits, fleet], default=None)

    def _ask_what_is_due(self, now: float) -> None:
        due = self._calm.due(self._children.draining())
        if due is not None and due <= now:
            self._asked.append(CHANGED)
        if self._replace_at is not None and self._replace_at <= now:
            self._replace_at = None
            self._asked.append(REPLACE)

    def _wait(self, seconds: float | None) -> None:
        """Sleep until something happens, and attend to what is not a request by signal."""
        self._journal.flush()
        self._held.ledger.add_lost(self._journal.losses())
        wait = None if seconds is None else max(0, int(seconds * 1000) + (seconds > 0))
        children = self._children.by_control()
        for fd, _ in self._poll.poll(wait):
            if fd == self._wake_fd:
                os.read(fd, 4096)
                self._children.reap(self._fleet.reap)
            elif fd == self._control.fileno():
                self._tell_status()
            elif fd == self._watch.fd:
                if self._watch.has_changed():
                    self._calm.note(time.monotonic())
            elif fd in children:
                self._children.hear(children[fd])
            elif self._fleet.has(fd):
                self._fleet.hear(fd)

    def _tell_status(self) -> None:
        pids = [child.pid for child in self._children.serving()]
        reloads = (self._reloads, self._failed_reloads)
        is_asked = _signal.SIGHUP in self._asked or CHANGED in self._asked
        is_reloading = self._is_reloading or is_asked
        text = control.report(
            self._held,
            self._fleet,
            pids,
            self._started,
            reloads,
            reloading=(is_reloading, self._trouble),
        )
        wish = control.answer(self._control, text)
        if wish == LOOK:
            self._children.look()
        elif wish == RELOAD:
            self._asked.append(_signal.SIGHUP)
        elif wish.startswith(LEAVE):
            self._leave(wish[len(LEAVE) :].decode("ascii", "replace"))

    def _leave(self, name: str) -> None:
        """Serve a domain no more, until a reload is asked for or another tree has its name."""
        seen = self._tree(name)
        if seen is not None:
            if self._watch.has_changed():
                self._calm.note(time.monotonic())
            self._watch.gone.discard(name)  # another one of that name, before
            self._settings.left[name] = seen
            self._asked.append(CHANGED)

    def _tree(self, name: str) -> tuple[int, int] | None:
        """Device and inode of a domain's tree, where one is served by its name."""
        try:
            seen = os.lstat(f"{self._settings.followed[0]}/{name}")
        except (IndexError, OSError):
            return None
        return (seen.st_dev, seen.st_ino)

    # ---- what is served

    def reload(self, *, unless_same: bool = False) -> None:
        """Serve what is declared now; keep the old set, whole, where that is wrong."""
        begun = time.monotonic()
        self._is_reloading = True
        self._notifier.reloading(time.monotonic_ns() // 1000)
        try:
            if self._load(unless_same=unless_same):
                self._reloads += 1
                self._journal.write(NOTICE, f"reloaded: {self._held}")
            self._trouble = ""
        except VirtError as error:
            self._failed_reloads += 1
            self._tell_error("cannot reload, the old set stays", error)
        self._is_reloading = False
        self._notifier.ready(str(self._held))
        now = time.monotonic()
        self._calm.rest(now, now - begun)

    def _follow(self) -> None:
        """Hear from now on of what changes, and take what was told before as read."""
        unheard = self._watch.begin()
        if unheard and unheard != self._unheard:
            text = f"cannot follow what changes in {self._settings.followed[0]}: {unheard}"
            self._journal.write(WARNING, f"{text}: SIGHUP has it read")
        self._unheard = unheard
        if self._watch.fd >= 0:
            self._poll.register(self._watch.fd, select.POLLIN)
        self._watch.has_changed()
        self._calm.looked()
        left, gone = self._settings.left, self._watch.gone
        # An inode may be used again at once: who went meanwhile is told by the queue.
        for name in [name for name in left if name in gone or self._tree(name) != left[name]]:
            del left[name]
        gone.clear()

    def _tell_error(self, what: str, error: VirtError) -> None:
        self._trouble = error.message
        self._journal.write(ERROR, f"{what}: {error.message}")
        for problem in getattr(error, "problems", ()):
            self._journal.write(ERROR, str(problem))

    def _load(self, *, unless_same: bool = False) -> bool:
        """Whether another set is served now. unless_same: keep the spawners where none is declared."""
        self._follow()
        there = frozenset(self._held.namespaces)
        try:
            loaded = loading.load(self._settings.read, self._held.home, there)
        except OSError as error:
            raise VirtError(f"cannot read what is declared: {error.strerror}") from error
        if unless_same and loaded.digest == self._digest:
            loaded.drop()
            return False
        before = self._held.take(loaded)
        known = frozenset(before.notes if unless_same else ())  # nobody asked for all of them again
        for note in loaded.board.notes:
            if note not in known:
                self._journal.write(WARNING, note)
        linux.trim_memory()
        try:
            self._renew()
        except VirtError:
            self._held.go_back(before)
            raise
        finally:
            self._children.release()
        self._digest = loaded.digest
        self._fleet.want(loaded.board.daemons, is_asked=not unless_same)
        return True

    def _renew(self) -> None:
        """Start spawners for the board, and only when they accept have the old ones drain.

        Until those accept no more, one may still take a connection to a domain that it does not know.
        """
        children = self._children
        old = children.serving()
        try:
            self._await_ready(children.start_all(self._settings.cores))
        except (VirtError, OSError) as error:
            for child in children.serving():
                if child not in old:
                    children.drain(child)
            cause = error.strerror if isinstance(error, OSError) else error.message
            raise VirtError(f"cannot start spawners: {cause}") from error
        for child in old:
            children.drain(child)
        deadline = time.monotonic() + _STOPPED_SECONDS
        while any(one.pid in children.all and not one.is_stopped for one in old):
            if time.monotonic() > deadline:
                return  # a proxy is slow to send its header
            self._wait(0.1)

    def _await_ready(self, started: list[Child]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not all(child.is_ready for child in started):
            if time.monotonic() > deadline or not all(
                one.pid in self._children.all for one in started
            ):
                raise VirtError("they end at once, the log says why")
            self._wait(0.1)

    def _replace(self) -> None:
        """A spawner died, and its pid namespace with it: what it counted as live is no more.

        At once, but one that dies again and again is started once a second.
        """
        now = time.monotonic()
        if now < self._replaced + _RESTART_SECONDS:
            self._replace_at = self._replaced + _RESTART_SECONDS
            return
        self._held.renew_ledger()
        try:
            self._renew()
        except VirtError as error:
            self._tell_error("cannot serve", error)
            self._replace_at = time.monotonic() + _RESTART_SECONDS
        self._replaced = time.monotonic()

    # ---- the end, and a successor

    def _end(self) -> int:
        """Take no more, wait for what runs, and end; what has not ended by then is killed."""
        children = self._children
        self._notifier.stopping("draining")
        self._journal.write(NOTICE, "draining")
        for child in children.serving():
            children.drain(child)
        self._fleet.stop()
        deadline = time.monotonic() + self._settings.drain_seconds
        while children.all and time.monotonic() < deadline:
            self._wait(deadline - time.monotonic())
            if {_signal.SIGTERM, _signal.SIGINT} & set(self._take_asked()):
                break
        for child in children.all.values():
            os.kill(child.pid, _signal.SIGKILL)
        while children.all or not self._fleet.is_over():  # a daemon has its own time
            self._wait(1.0)
            if {_signal.SIGTERM, _signal.SIGINT} & set(self._take_asked()):
                self._fleet.kill()
        if self._settings.control:
            control.remove(self._settings.control)
        self._journal.write(NOTICE, "ended")
        self._journal.flush()
        return 0

    def _is_accepted(self) -> bool:
        """Whether the new program can be started and takes what is declared."""
        try:
            pid = os.posix_spawn(self._settings.check[0], self._settings.check, os.environ)
        except OSError as error:
            self._journal.write(ERROR, f"cannot run {self._settings.check[0]}: {error.strerror}")
            return False
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status) in (0, 1)  # 1: some domain is left out, as now

    def _hand_over(self) -> None:
        """Become the program as it is installed now: listeners, connections and counts stay."""
        if not self._is_accepted():
            self._failed_reloads += 1
            self._journal.write(
                ERROR, "cannot upgrade: the new program does not accept what is declared"
            )
            return
        counts = (self._started, self._reloads, self._failed_reloads)
        state_fd = successor.leave(self._held, self._children, self._fleet, self._control, counts)
        environ = {**os.environ, **self._notifier.environment(), successor.STATE: str(state_fd)}
        self._journal.flush()
        # Between the two none may end us, nor be lost: what the kernel reaps while SIGCHLD is
        # ignored, the successor would take for alive, and end who has its number by then.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
        try:
            os.execve(self._settings.successor[0], self._settings.successor, environ)
        except OSError as error:  # it went since it was asked whether it accepts what is declared
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, SIGNALS)
            os.close(state_fd)
            linux.close_range_cloexec(3)
            self._failed_reloads += 1
            self._journal.write(ERROR, f"cannot upgrade: {error.strerror}")
