"""Doer: the process that reads dev/log of all domains and writes it down, without root.

Its holder gives it sockets over descriptor 0, and again to the next one should this one crash.
"""

import json
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from virttools import linux
from virttools.datagrams import Datagrams
from virttools.devlog import cgroups, lines, messages, places
from virttools.devlog.attribution import Attribution
from virttools.devlog.forward import Forward
from virttools.devlog.limits import Limit
from virttools.devlog.writing import Files

CHANNEL = 0
"""The descriptor of the holder's channel; packets are WORD [DOMAIN], with a descriptor for some."""

UNKNOWN = "unknown.log"
"""Beside the combined file: what came over the shared socket from nobody known."""

_ONE = (
    messages.LARGEST,
    socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4),  # struct ucred, and a pidfd
    socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
)

_TICK = 1.0
_LAST_HELPINGS = 64  # who is let go while sending on and on is not waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `virt log serve` was told. forward: a word or a path, or "" for none."""

    root: str
    rate: int
    burst: int
    files: bool
    combined: bool
    forward: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom the receiver becomes before it reads a message."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class Source:
    """One socket: what its lines begin with, and where they go. domain None: the shared one."""

    __slots__ = ("domain", "fd", "file", "head", "limit", "socket")

    def __init__(self, fd: int, domain: str | None, limit: Limit) -> None:
        self.fd = fd
        self.socket = socket.socket(fileno=fd)
        self.domain = domain
        self.head, self.file = _place(domain)
        self.limit = limit


def _place(domain: str | None) -> tuple[bytes, str]:
    """What stands after the time on a domain's lines, and its file."""
    if domain is None:
        return b" %s " % lines.UNKNOWN.encode(), UNKNOWN
    return b" %s " % domain.encode(), places.domain_log("", domain)


class Receiver:
    """Sockets, files and what is on its way between them. Nothing is kept between two rounds."""

    def __init__(self, options: Options, folder_fd: int, poll: select.epoll, room: int) -> None:
        self._options = options
        self._poll = poll
        self._files = Files(folder_fd, room, self._broken)
        self._forward = Forward(options.forward) if options.forward else None
        self._framing = messages.Framing()
        self._datagrams = Datagrams(messages.LARGEST)
        self._attribution = Attribution(options.root, cgroups.mount_point())
        self.sources: dict[int, Source] = {}
        self._by_name: dict[str | None, Source] = {}
        self._limited: set[Source] = set()
        self._pending: dict[str, list[bytes]] = {}
        self._combined: list[bytes] = []
        self._now = time.time()
        self._stamp = lines.stamp(self._now)

    # --- sockets that come and go

    def take(self, domain: str | None, fd: int) -> None:
        """Read from a further socket; one that the domain had is let go."""
        self.drop(domain)
        source = Source(fd, domain, Limit(self._options.rate, self._options.burst))
        self.sources[fd] = self._by_name[domain] = source
        self._poll.register(fd, select.EPOLLIN)

    def drop(self, domain: str | None) -> None:
        """Let a socket go, after the last that was said on it."""
        source = self._by_name.pop(domain, None)
        if source is None:
            return
        for _ in range(_LAST_HELPINGS):
            if not self.drain(source.fd):
                break
        self._tell_dropped(source, at_once=True)
        self.flush()
        self._files.close(source.file)
        self._poll.unregister(source.fd)
        del self.sources[source.fd]
        source.socket.close()

    def reopen(self) -> None:
        self._files.reopen()

    # --- messages

    def begin(self) -> None:
        """A round: everything in it has one time."""
        self._now = time.time()
        self._stamp = lines.stamp(self._now)

    def drain(self, fd: int) -> bool:
        """Take one helping of what waits in a socket; whether there was any."""
        source = self.sources[fd]
        try:
            if source.domain is None:
                return self._drain_shared(source)
            batch = self._datagrams.receive(fd)
        except OSError:
            return False
        allowed = source.limit.take(len(batch), time.monotonic()) if self._options.rate else 64
        if allowed < len(batch):
            self._limited.add(source)
            del batch[allowed:]
        if batch:
            frame = self._framing.frame
            rows = [
                frame(data, pid, uid) + messages.CUT if is_cut else frame(data, pid, uid)
                for data, is_cut, pid, uid in batch
            ]
            self._put(source.head, source.file, rows)
            if self._forward is not None:
                for data, _, pid, uid in batch:
                    self._pass_on(data, source.domain, pid, uid)
        return True

    def _put(self, head: bytes, file: str, rows: list[bytes]) -> None:
        before = self._stamp + head
        text = before + (b"\n" + before).join(rows) + b"\n"
        if self._options.files:
            self._pending.setdefault(file, []).append(text)
        if self._options.combined:
            self._combined.append(text)

    def _drain_shared(self, source: Source) -> bool:
        """One by one: each may be another domain's, and brings a descriptor of its sender."""
        for count in range(Datagrams.MANY):
            try:
                data, ancillary, flags, _ = source.socket.recvmsg(*_ONE)
            except BlockingIOError:
                return count > 0
            pid, uid, pidfd = _credentials(ancillary)
            try:
                domain = self._attribution.domain(pid, pidfd)
            finally:
                if pidfd is not None:
                    os.close(pidfd)
            if not source.limit.take(1, time.monotonic()):
                self._limited.add(source)
                continue
            row = self._framing.frame(data, pid, uid)
            row += messages.CUT if flags & socket.MSG_TRUNC else b""
            self._put(*_place(domain), [row])
            self._pass_on(data, domain or lines.UNKNOWN, pid, uid)
        return True

    def _pass_on(self, data: bytes, domain: str, pid: int, uid: int) -> None:
        if self._forward is not None:
            self._forward.pass_on(messages.read(data), domain, pid, uid, self._now)

    def flush(self) -> None:
        """Write what this round brought."""
        if self._pending:
            pending, self._pending = self._pending, {}
            for file, texts in pending.items():
                self._files.append(file, b"".join(texts))
        if self._combined:
            combined, self._combined = self._combined, []
            self._files.append(places.COMBINED, b"".join(combined))
        if self._forward is not None and self._forward.is_waiting:
            full_fd = self._forward.push()
            if full_fd is not None:
                self._await_room(full_fd)

    def _await_room(self, fd: int) -> None:
        """Have the next round begin when the host's queue is no longer full."""
        events = select.EPOLLOUT | select.EPOLLONESHOT
        try:
            self._poll.modify(fd, events)
        except FileNotFoundError:
            self._poll.register(fd, events)

    # --- what we have to say ourselves

    def tick(self) -> None:
        """Once a second, while there is something to report: what was dropped, and where."""
        for source in tuple(self._limited):
            self._tell_dropped(source)
        if self._forward is not None and self._forward.lost and not self._forward.is_waiting:
            lost, self._forward.lost = self._forward.lost, 0
            self._say(None, f"{lost} messages not forwarded: {self._options.forward} took none")

    @property
    def is_restless(self) -> bool:
        waits = self._forward is not None and (self._forward.is_waiting or self._forward.lost)
        return bool(self._limited or waits)

    def _tell_dropped(self, source: Source, *, at_once: bool = False) -> None:
        dropped = source.limit.told(time.monotonic(), at_once=at_once)
        if dropped:
            rate = self._options.rate
            self._say(source.domain, f"{dropped} messages dropped: more than {rate} a second")
        if not source.limit.has_dropped:
            self._limited.discard(source)

    def _say(self, domain: str | None, text: str) -> None:
        row = lines.prefix(5 << 3 | 4, b"virt-log", os.getpid(), os.geteuid()) + text.encode()
        self._put(*_place(domain), [row])

    def _broken(self, path: str, cause: str, lost: int) -> None:
        """A file cannot be written, or can be again: whoever started us reads of it, too."""
        text = f"{lost} lines lost: {path} could not be written"
        if lost:
            row = lines.prefix(5 << 3 | 3, b"virt-log", os.getpid(), os.geteuid()) + text.encode()
            whole = self._stamp + b" %s " % lines.UNKNOWN.encode() + row + b"\n"
            self._files.append(path, whole)
        else:
            text = f"cannot write {path}: {cause}"
        _warn(text)


def _warn(text: str) -> None:
    with suppress(OSError):
        os.write(2, b"virt: " + text.encode("utf-8", "backslashreplace") + b"\n")


def _credentials(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, int | None]:
    """pid, uid and pidfd of the sender; descriptors that it sent along are closed."""
    pid = uid = 0
    pidfd = None
    for _, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            pid, uid, _ = struct.unpack("=iII", data)
        elif kind == linux.SCM_PIDFD and len(data) == 4:
            (pidfd,) = struct.unpack("=i", data)
        elif kind == socket.SCM_RIGHTS:
            for (fd,) in struct.iter_unpack("=i", data[: len(data) & ~3]):
                os.close(fd)
    return pid, uid, pidfd if pidfd is None or pidfd >= 0 else None


# --- the process


class _Process:
    """The loop: the holder's channel, a signal to stop, and all sockets."""

    def __init__(self) -> None:
        self._channel = socket.socket(fileno=CHANNEL)
        self._poll = select.epoll()
        self._is_over = False
        self._wake_fd, wake_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_fd)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        self._poll.register(self._channel, select.EPOLLIN)
        self._poll.register(self._wake_fd, select.EPOLLIN)
        word, options, (folder_fd,) = self._packet()
        assert word == "begin"
        told = json.loads(options)
        if told["account"]:
            _become(Account(**told["account"]))
        linux.hide_memory()
        linux.set_no_new_privileges()
        self._receiver = Receiver(Options(**told["options"]), folder_fd, self._poll, told["room"])

    def run(self) -> None:
        receiver, poll = self._receiver, self._poll.poll
        channel_fd, wake_fd = self._channel.fileno(), self._wake_fd
        while not self._is_over:
            ready = poll(_TICK if receiver.is_restless else -1, 256)
            receiver.begin()
            for fd, _ in ready:
                if fd == channel_fd:
                    self._obey()
                elif fd == wake_fd:
                    self._signalled()
                elif fd in receiver.sources:
                    receiver.drain(fd)
            receiver.tick()
            receiver.flush()

    def _signalled(self) -> None:
        if any(number != signal.SIGUSR1 for number in os.read(self._wake_fd, 64)):
            self._is_over = True
        else:
            self._receiver.reopen()

    def _packet(self) -> tuple[str, str, list[int]]:
        flags = socket.MSG_CMSG_CLOEXEC
        data, fds, _, _ = socket.recv_fds(self._channel, 1 << 16, 1, flags)
        word, _, rest = data.decode().partition(" ")
        return word, rest, fds

    def _obey(self) -> None:
        word, domain, fds = self._packet()
        if word == "take":
            self._receiver.take(domain or None, fds[0])
        elif word == "drop":
            self._receiver.drop(domain or None)
        elif word == "reopen":
            self._receiver.reopen()
        else:  # the holder is gone
            self._is_over = True


def _become(account: Account) -> None:
    """Give up root. From here on nothing more can be imported: virt may lie where only root reads."""
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def main() -> int:
    """Serve until told to stop; whatever was taken from a socket is written by then."""
    os.umask(0o027)
    _Process().run()
    return 0
