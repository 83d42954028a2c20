"""Doer: a process that has become a user of a domain for good, and starts programs as that user.

It is the tenant's to kill: the spawner, whose memory it no longer has, only loses that worker.
"""

import _signal  # type: ignore[import-not-found]  # signal loads enum and re
import _socket
import marshal
import os
import resource
import select
from array import array

from virttools import linux
from virttools.enter import signals
from virttools.enter.confinement import KEPT_CAPABILITIES
from virttools.serve import jail, launch
from virttools.serve.board import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_LONGEST = 1 << 16
_STUB = b"import sys; exec(compile(sys.argv[1], 'zygote', 'exec'))"
_MARSHAL = 4  # what every Python that may be in a tree can read
_FD = array("i", [0]).itemsize


class Handle:
    """The spawner's end of a worker. live: the numbers of its connections that have not ended."""

    __slots__ = ("idle_since", "live", "name", "pid", "socket")

    def __init__(self, name: str, pid: int, socket: _socket.socket) -> None:
        self.name = name
        self.pid = pid
        self.socket = socket
        self.live: set[int] = set()
        self.idle_since = 0.0

    def send(
        self, number: int, argv: tuple[bytes, ...], env: dict[bytes, bytes], path: bytes, fd: int
    ) -> None:
        """Have the worker serve fd. Raises OSError: EAGAIN where too much waits already, EPIPE."""
        message = marshal.dumps((number, path, argv, env), _MARSHAL)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", [fd]).tobytes())
        self.socket.sendmsg([message], [rights], _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)

    def end(self, number: int, signal: int) -> None:
        """Have the worker send a signal to the program of a connection. Raises OSError as `send`."""
        message = marshal.dumps((number, signal), _MARSHAL)
        self.socket.send(message, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[int, int] | None:
        """A number of a connection and the status it ended with; None: the worker is gone.

        What it says is believed about its own connections only. Raises BlockingIOError.
        """
        try:
            message = self.socket.recv(16, _socket.MSG_DONTWAIT)
        except ConnectionError:
            return None
        if len(message) != 16:
            return None
        return int.from_bytes(message[:8]), int.from_bytes(message[8:], signed=True)


def pair() -> tuple[_socket.socket, _socket.socket]:
    """The two ends, which keep messages apart."""
    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, kind)
    return (
        _socket.socket(fileno=ours.detach()),
        _socket.socket(fileno=theirs.detach()),
    )


def become(target: Target, socket_fd: int, null_fd: int, forking: bytes) -> "NoReturn":
    """In a fresh process that is in its place already: drop everything, then serve until told to end.

    null_fd: a null device; forking: the text of serve/forking.py, for a zygote.
    """
    status = 70
    try:
        for number in range(3):
            os.dup2(null_fd, number)
        os.dup2(socket_fd, 3, inheritable=False)
        os.closerange(4, 1 << 20)
        _drop(target)
        if target.zygote:
            _be_zygote(target, forking)
        _Worker(_socket.socket(fileno=3)).run()
        status = 0
    finally:
        os._exit(status)


def _drop(target: Target) -> None:
    for number, most in target.rlimits:
        resource.setrlimit(number, (most, most))
    if target.nice:
        os.setpriority(os.PRIO_PROCESS, 0, target.nice)
    jail.confine()
    if target.ids is None:
        linux.set_capabilities(KEPT_CAPABILITIES)
    else:
        os.setgroups(target.ids.groups)
        os.setresgid(target.ids.gid, target.ids.gid, target.ids.gid)
        os.setresuid(target.ids.uid, target.ids.uid, target.ids.uid)
    linux.hide_memory()


def _be_zygote(target: Target, forking: bytes) -> None:
    """Become the tree's interpreter. Comes back where that fails, for a plain worker to say why."""
    again = [forking, target.path, b"", _STUB, *target.zygote]
    words = [*target.zygote, b"-c", _STUB, *again]
    signals.reset()
    os.set_inheritable(3, True)
    try:
        # What is bound now, no fork has to bind, and copy the page of it (ld.so(8)).
        os.execve(target.zygote[0], words, {**target.env, b"LD_BIND_NOW": b"1"})
    except OSError:
        os.set_inheritable(3, False)


class _Worker:
    __slots__ = ("_live", "_socket", "_wake_fd")

    def __init__(self, socket: _socket.socket) -> None:
        self._socket = socket
        self._live: dict[int, int] = {}
        self._wake_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, _nothing)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def run(self) -> None:
        """Until the spawner closes its end, and all programs have ended."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        is_open = True
        while is_open or self._live:
            for fd, _ in poll.poll():
                if fd == self._wake_fd:
                    os.read(fd, 4096)
                    self._reap()
                elif not self._serve():
                    is_open = False
                    poll.unregister(fd)

    def _serve(self) -> bool:
        message, rights, _, _ = self._socket.recvmsg(
            _LONGEST, _socket.CMSG_SPACE(_FD), _socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            return False
        told = marshal.loads(message)  # noqa: S302  the spawner's, not the tenant's
        if not rights:
            self._end(*told)
            return True
        number, path, argv, env = told
        fd = array("i", rights[0][2])[0]
        try:
            self._live[launch.launch(path, argv, env, fd)] = number
        except OSError as error:
            self._tell(number, -1000 - (error.errno or 0))
        finally:
            os.close(fd)
        return True

    def _end(self, number: int, signal: int) -> None:
        """Its time is over; it was not reaped yet."""
        for pid, known in self._live.items():
            if known == number:
                launch.end(pid, signal)

    def _reap(self) -> None:
        while self._live:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._live.pop(pid, None)
            if number is not None:
                self._tell(number, os.waitstatus_to_exitcode(status))

    def _tell(self, number: int, status: int) -> None:
        try:
            self._socket.send(number.to_bytes(8) + status.to_bytes(8, signed=True))
        except OSError:
            return  # the spawner is gone


def _nothing(*_: object) -> None:
    """Let SIGCHLD write to the wake-up descriptor."""
