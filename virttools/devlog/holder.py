"""Doer: the parent of the receiver. Holds the sockets, starts the receiver again when it dies, decides nothing.

It never reads what a domain sent. HUP: both become the program that is installed now; no socket is closed.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from virttools import linux
from virttools.devlog import handover
from virttools.devlog.receiver import Account, Options

_PATH = "import sys; sys.path.append(sys.argv.pop(1))"
_HOLDER = "from virttools.devlog import holder; sys.exit(holder.main())"
_RECEIVER = "from virttools.devlog import receiver; sys.exit(receiver.main())"
_LOAD = "from virttools.devlog import holder, receiver"

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
_PATIENCE = 10.0
"""Seconds that a receiver may take to read from its channel, or to write down what it has and end."""

_SOON = 2.0  # who lives shorter is not started again at once
_SHORTEST, _LONGEST = 0.1, 5.0
_SPARE = 64  # descriptors that are neither sockets nor log files


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is kept across execve(2): descriptors, and what was asked for.

    control, lock, folder: descriptors, as are the sockets, by domain; "" is the shared one.
    account: whom the receiver becomes, or None; trusted: the user besides root who may hand over sockets.
    """

    control: int
    lock: int
    folder: int
    sockets: tuple[tuple[str, int], ...]
    options: Options
    account: Account | None
    trusted: int

    def descriptors(self) -> tuple[int, ...]:
        return (self.control, self.lock, self.folder, *(fd for _, fd in self.sockets))


def become(state: State) -> None:
    """Make this process the holder. Comes back only by OSError."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the new program listens to them
    memory_fd = os.memfd_create("state", 0)
    with open(memory_fd, "w", encoding="utf-8", closefd=False) as memory:
        json.dump(asdict(state), memory)
    for fd in state.descriptors():
        os.set_inheritable(fd, True)
    os.execv(sys.executable, [*_program(_HOLDER), str(memory_fd)])


def _program(code: str) -> list[str]:
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-I", "-S", "-c", f"{_PATH}; {code}", package]


def _is_sound() -> bool:
    """Whether both programs can be loaded as they are installed now."""
    try:
        _, status = os.waitpid(_spawn(_program(_LOAD), 2), 0)
    except OSError:
        return False
    return status == 0


def _spawn(argv: list[str], input_fd: int) -> int:
    """Start a program of ours with that descriptor 0; its pid."""
    actions = [(os.POSIX_SPAWN_DUP2, input_fd, 0)]
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigmask=[])


def _inherited(memory_fd: int) -> State:
    with open(memory_fd, encoding="utf-8") as memory:
        memory.seek(0)
        told = json.load(memory)
    account = told["account"]
    state = State(
        control=told["control"],
        lock=told["lock"],
        folder=told["folder"],
        sockets=tuple((domain, fd) for domain, fd in told["sockets"]),
        options=Options(**told["options"]),
        account=Account(**account) if account else None,
        trusted=told["trusted"],
    )
    for fd in state.descriptors():
        os.set_inheritable(fd, False)
    return state


class Holder:
    """The sockets by domain, the receiver that reads them now, and those who bring further ones."""

    def __init__(self, state: State) -> None:
        self._state = replace(state, sockets=())
        self._sockets = dict(state.sockets)
        self._control = socket.socket(fileno=state.control)
        self._control.setblocking(False)
        self._callers: dict[int, socket.socket] = {}
        self._receiver: int | None = None
        self._channel: socket.socket | None = None
        self._started = 0.0
        self._pause = 0.0
        self._is_over = False
        self._poll = select.epoll()
        self._poll.register(self._control, select.EPOLLIN)
        self._wake_fd = _signals()
        self._poll.register(self._wake_fd, select.EPOLLIN)
        for domain, fd in self._sockets.items():
            _prepare(fd, domain)

    def run(self) -> None:
        self._start()
        while not self._is_over:
            for fd, events in self._poll.poll(self._wait()):
                if fd == self._wake_fd:
                    self._signalled()
                elif fd == self._control.fileno():
                    self._meet()
                elif fd in self._callers:
                    self._answer(self._callers[fd], has_left=bool(events & select.EPOLLHUP))
            self._revive()
        self._stop()
        os.ftruncate(self._state.lock, 0)  # the pid in it is nobody's from now on

    # --- the receiver

    def _wait(self) -> float:
        """Seconds until the receiver is to be started again, -1 while it runs."""
        if self._receiver is not None:
            return -1
        return max(0.0, self._started + self._pause - time.monotonic())

    def _revive(self) -> None:
        if not self._is_over and self._wait() == 0:
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_PATIENCE)
        self._started = time.monotonic()
        try:
            with theirs:
                self._receiver = _spawn(_program(_RECEIVER), theirs.fileno())
        except OSError as error:
            ours.close()
            self._pause = _LONGEST
            _say(f"cannot start the receiver: {error.strerror}; it is tried again")
            return
        self._channel = ours
        limit, _ = _room()
        account = self._state.account
        told = {
            "options": asdict(self._state.options),
            "account": asdict(account) if account else None,
            "room": limit - len(self._sockets) - _SPARE,
        }
        self._tell("begin " + json.dumps(told), self._state.folder)
        for domain, fd in self._sockets.items():
            self._tell(f"take {domain}", fd)

    def _tell(self, text: str, fd: int | None = None) -> None:
        """Send the receiver a packet; one that does not read it is ended, and the next is told all."""
        if self._channel is None:
            return
        try:
            socket.send_fds(self._channel, [text.encode()], [] if fd is None else [fd])
        except OSError:
            self._channel.close()
            self._channel = None
            if self._receiver is not None:
                os.kill(self._receiver, signal.SIGKILL)

    def _reap(self) -> None:
        if self._receiver is None:
            return
        pid, status = os.waitpid(self._receiver, os.WNOHANG)
        if pid == 0:
            return
        self._receiver = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        is_early = time.monotonic() - self._started < _SOON
        self._pause = min(max(self._pause * 2, _SHORTEST), _LONGEST) if is_early else 0.0
        _say(f"the receiver ended ({_cause(status)}); it is started again, no socket is lost")

    def _stop(self) -> None:
        """Have the receiver write down what it has, and end."""
        if self._receiver is None:
            return
        os.kill(self._receiver, signal.SIGTERM)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            pid, _ = os.waitpid(self._receiver, os.WNOHANG)
            if pid:
                break
            time.sleep(0.002)
        else:
            os.kill(self._receiver, signal.SIGKILL)
            os.waitpid(self._receiver, 0)
        self._receiver = None

    # --- signals

    def _signalled(self) -> None:
        came = set(os.read(self._wake_fd, 4096))
        if signal.SIGCHLD in came:
            self._reap()
        if signal.SIGUSR1 in came:
            self._tell("reopen")
        if came & {signal.SIGTERM, signal.SIGINT}:
            self._is_over = True
        elif signal.SIGHUP in came:
            self._renew()

    def _renew(self) -> None:
        """Become what is installed now; if that cannot even be loaded, go on as before."""
        if not _is_sound():
            _say("cannot start anew: what is installed does not start; going on as before")
            return
        self._stop()
        try:
            become(replace(self._state, sockets=tuple(self._sockets.items())))
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            _say(f"cannot start anew: {error.strerror}; going on as before")

    # --- those who hand over sockets

    def _meet(self) -> None:
        with suppress(BlockingIOError):
            caller, _ = self._control.accept()
            _, uid, _ = struct.unpack(
                "=iII", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            )
            if uid not in (0, self._state.trusted):
                caller.close()
                return
            caller.setblocking(False)
            self._callers[caller.fileno()] = caller
            self._poll.register(caller, select.EPOLLIN)

    def _answer(self, caller: socket.socket, *, has_left: bool) -> None:
        """Obey; but not somebody who stopped waiting: its domain may have another socket by now."""
        with suppress(OSError):
            flags = socket.MSG_CMSG_CLOEXEC
            data, fds, _, _ = socket.recv_fds(caller, 4096, 1, flags)
            if data and not has_left:
                caller.send(handover.OK if self._obey(data, fds) else b"no")
                return
            for fd in fds:
                os.close(fd)
        self._poll.unregister(caller)
        del self._callers[caller.fileno()]
        caller.close()

    def _obey(self, data: bytes, fds: list[int]) -> bool:
        if data.startswith(handover.TAKE) and fds:
            return self._take(data[len(handover.TAKE) :].decode(), fds[0])
        for fd in fds:
            os.close(fd)
        if data.startswith(handover.DROP):
            domain = data[len(handover.DROP) :].decode()
            known = self._sockets.pop(domain, None)
            if known is not None:
                os.close(known)
                self._tell(f"drop {domain}")
            return True
        return False

    def _take(self, domain: str, fd: int) -> bool:
        if not _is_datagrams(fd):
            os.close(fd)
            return False
        _prepare(fd, domain)
        before = self._sockets.get(domain)
        self._sockets[domain] = fd
        self._tell(f"take {domain}", fd)
        if before is not None:
            os.close(before)
        return True


def _signals() -> int:
    """A descriptor that tells signals by their numbers; those that came before it are told, too."""
    wake_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_fd)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    return wake_fd


def _room() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _is_datagrams(fd: int) -> bool:
    with socket.socket(fileno=os.dup(fd)) as one:
        return (one.family, one.type) == (socket.AF_UNIX, socket.SOCK_DGRAM)


def _prepare(fd: int, domain: str) -> None:
    """Have the kernel say who sends; on the shared socket by a pidfd too (Linux 6.5)."""
    with socket.socket(fileno=os.dup(fd)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if not domain:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, linux.SO_PASSPIDFD, 1)


def _cause(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"status {code}"


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"virt: {text}\n".encode())


def main() -> int:
    """Hold what `virt log serve` or an earlier holder left in the memory that argv[1] names."""
    state = _inherited(int(sys.argv[1]))
    linux.hide_memory()
    linux.set_no_new_privileges()
    holder = Holder(state)
    _say(f"serving {len(state.sockets)} sockets below {state.options.root}")
    holder.run()
    return 0
