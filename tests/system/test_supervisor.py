"""What the server does about its spawners where something goes wrong between two sets of them."""

import _thread
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from virttools.errors import VirtError
from virttools.serve import successor
from virttools.serve.acceptor import Acceptor
from virttools.serve.board import Board, Endpoint, Finder, Place, Target
from virttools.serve.children import CHANGED, REPLACE, SIGNALS, Child, Children
from virttools.serve.crowd import Crowd
from virttools.serve.holdings import Holdings
from virttools.serve.journal import Journal
from virttools.serve.ledger import Ledger
from virttools.serve.live import Connection
from virttools.serve.notify import Notifier
from virttools.serve.proxied import Pendings
from virttools.serve.supervisor import Settings, Supervisor
from virttools.serve.work import Work

ENDS: list[socket.socket] = []
ASKED: list[int] = []


class Closing(Holdings):
    """Counts how often it is told to close what its board needs no more."""

    times = 0

    def close_unused(self) -> None:
        self.times += 1


class Failing(Children):
    """Starts one, and then there is no room for another process."""

    def start_all(self, cores: int) -> list[Child]:
        spawner(self, 2)
        raise BlockingIOError(11, f"no process is left for {cores}")


def spawner(children: Children, pid: int) -> tuple[Child, socket.socket]:
    """One that serves the present board, and its own end of the control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = children.add(pid, ours, is_waiting=False)
    child.board = children._held.board
    ENDS.extend((ours, theirs))
    return child, theirs


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """One that has not begun: no signal is its own."""
    journal = Journal(to_stderr=True)
    made = Supervisor.__new__(Supervisor)
    made._failed_reloads = 0
    made._journal, made._held, made._poll = journal, Closing(journal), select.poll()
    made._settings = Settings(
        Board, control="", cores=2, drain_seconds=1, journal=journal, successor=[], check=["/none"]
    )
    ASKED.clear()
    made._children = Failing(made._held, made._poll, ASKED.append)
    yield made
    for name in made._held.home.__slots__:
        os.close(getattr(made._held.home, name))
    while ENDS:
        ENDS.pop().close()


def test_nothing_is_closed_that_a_spawner_enters_by_its_number(supervisor: Supervisor) -> None:
    """One that drains has stopped while the next set is only being started: who serves relies on the old board."""
    held, children = supervisor._held, supervisor._children
    assert isinstance(held, Closing)
    draining, its_end = spawner(children, 1)
    children.drain(draining)
    held.board = Board()
    serving, _ = spawner(children, 2)
    held.board = Board()
    its_end.send(b"stopped")
    children.hear(draining)
    assert (draining.is_stopped, held.times) == (True, 0)
    serving.is_draining = serving.is_stopped = True
    children.release()
    assert held.times == 1


def test_a_tree_that_went_ends_no_leave(supervisor: Supervisor, tmp_path: Path) -> None:
    """What is served is read again, but only who asks for a reload has domains served that the server had left."""
    place = Place("gone.test", str(tmp_path / "gone.test"), identity=(1, 2))
    target = Target("web", place, path=b"/web", argv=(b"web",), env={})
    supervisor._held.board = Board(targets=(target,))
    supervisor._children.look()
    tmp_path.joinpath("gone.test").mkdir()
    supervisor._children._look_at("gone.test")
    assert ASKED == [CHANGED, CHANGED]


def test_who_is_killed_relies_on_nothing(supervisor: Supervisor) -> None:
    """A spawner that never said that it stopped: what it alone needed is closed, and its counts are renewed."""
    held, children = supervisor._held, supervisor._children
    assert isinstance(held, Closing)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    draining, _ = spawner(children, pid)
    draining.is_ready = True
    children.drain(draining)
    held.board = Board()
    children.release()
    assert held.times == 0
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    children.reap(lambda pid: pytest.fail(str(pid)))
    assert (children.all, children.has_freed, ASKED) == ({}, True, [REPLACE])
    children.release()
    assert (children.has_freed, held.times) == (False, 1)


def test_a_set_that_cannot_be_started_whole_takes_nothing(supervisor: Supervisor) -> None:
    """The spawners of before serve on, and what was started of the others is told to end."""
    old, _ = spawner(supervisor._children, 1)
    with pytest.raises(VirtError, match="cannot start spawners: no process is left for 2"):
        supervisor._renew()
    assert supervisor._children.serving() == [old]


def test_a_program_that_is_gone_is_no_successor(
    supervisor: Supervisor, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The server stays what it is."""
    supervisor._settings.check = [str(tmp_path / "virt"), "serve", "--check"]
    supervisor._hand_over()
    supervisor._journal.flush()
    assert "cannot run" in capfd.readouterr().err
    assert supervisor._failed_reloads == 1


class Waiting(Acceptor):
    """Has a service whose program takes the listener itself, and counts its starts."""

    def __init__(self, listener: socket.socket) -> None:
        endpoint = Endpoint("tcp", "127.0.0.1", 1, is_wait=True, default=0)
        target = Target("x", Place("d1.test", "/x"), path=b"/x", argv=(b"x",), env={})
        self._listeners = {listener.fileno(): (endpoint, listener, Finder(endpoint))}
        self._targets = (target,)
        self._ledger = Ledger()
        self._lock = _thread.allocate_lock()
        self._work = Work.__new__(Work)
        self._work.rows = [0]
        self._starts, self._rearm = {}, []
        self._wake_fd, self._wake_write_fd = os.pipe()
        self.times = 0

    def _begin(self, one: Connection, env: dict[bytes, bytes], fd: int) -> None:
        assert (one.wait_fd, env[b"PROTO"]) == (fd, b"TCP")
        self.times += 1

    def close(self) -> None:
        self._ledger.close()
        os.close(self._wake_fd)
        os.close(self._wake_write_fd)


def test_nothing_is_started_on_a_listener_that_was_shut() -> None:
    """Others listen in its place; where that fails, it listens again, and is looked at again until then."""
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(Waiting(listener)) as waiting:
        listener.shutdown(socket.SHUT_RD)
        waiting._serve_wait(listener.fileno())
        assert (waiting.times, [fd for _, fd in waiting._rearm]) == (0, [listener.fileno()])
        listener.listen()
        waiting._serve_wait(listener.fileno())
        assert waiting.times == 1


class Flooded(Acceptor):
    """Somebody connects without a pause: there is always one more."""

    def __init__(self, listener: socket.socket) -> None:
        endpoint = Endpoint("tcp", "127.0.0.1", 1)
        self._listeners = {listener.fileno(): (endpoint, listener, Finder(endpoint))}
        self._pendings, self._crowd = Pendings(), Crowd()
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno())
        self.taken = 0

    def _accept(self, fd: int) -> bool:
        self.taken += 1
        assert self.taken < 100_000, f"{fd} keeps it for ever"
        return True


def test_a_flood_does_not_keep_a_spawner_from_stopping() -> None:
    """It would go on by the rules of before, which a reload may have been to change."""
    with socket.socket() as listener:
        flooded = Flooded(listener)
        flooded._shut()
        flooded._epoll.close()
    assert flooded.taken > 1024


def test_a_successor_that_cannot_be_started_leaves_the_server_as_it_was(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when it was asked whether it accepts what is declared."""
    monkeypatch.setattr(supervisor, "_is_accepted", lambda: True)
    monkeypatch.setattr(successor, "leave", lambda *_: os.memfd_create("state", 0))
    supervisor._settings.successor = ["/none"]
    supervisor._started, supervisor._reloads = 0.0, 0
    supervisor._notifier = Notifier({})
    supervisor._control, end = socket.socketpair()
    ENDS.extend((supervisor._control, end))
    monkeypatch.setattr(supervisor, "_fleet", None, raising=False)
    seen: list[bool] = []

    def execve(*_: object) -> None:
        seen.append(set(SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        seen.append(signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "execve", execve)
    supervisor._hand_over()
    assert seen == [
        True,
        True,
    ]  # none is lost between the two, and no child is reaped by the kernel
    assert not set(SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert supervisor._failed_reloads == 1
