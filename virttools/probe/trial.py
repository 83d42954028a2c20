"""Doer: tries one service of one domain: a stage apart from everything, the program on it, and a client.

Two processes: this one waits, for so long and for so much; the other makes the stage and is the client.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from virttools import linux
from virttools.enter import inside
from virttools.errors import ApplyError, HostLacks, NeedsPrivilege, VirtError
from virttools.manifest.model import Probe
from virttools.probe import clients, introduction, network, scene
from virttools.probe.outcome import Call, Login, Outcome, Refused, printable
from virttools.probe.performer import Performer
from virttools.serve.board import Target

_LONGEST_REPORT = 1 << 16
_ROOM = 512 << 20
"""Bytes that a client may come to hold: an answer without end must not fill the machine's memory."""
_LINES = 20
"""What is shown of a log, at most."""
_SETTLING = 0.3
_ERRORS = {kind.code: kind for kind in (ApplyError, HostLacks, NeedsPrivilege)}


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried. addresses: the domain's; address: where the service listens.

    login None: with an account that is made for it. listens: its program is given connections;
    else (waits) the listening socket, or it is a daemon with a socket of its own. wants_live: who
    listens there now is tried, and not a program of ours; without a login, as nobody.
    """

    root: str
    domain: str
    uid_base: int
    addresses: tuple[str, ...]
    address: str
    port: int
    target: Target
    probe: Probe
    login: Login | None
    seconds: float
    listens: bool = True
    waits: bool = False
    wants_live: bool = False


def run(trial: Trial) -> Outcome:
    """What came of it. Raises VirtError where the stage could not be made."""
    is_live = _is_live(trial)
    if trial.wants_live and not is_live:
        told = f"nobody answers at {trial.address}, port {trial.port}"
        return Outcome(trial.probe.service, trial.port, False, told, address=trial.address)
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read_fd)
            os.write(write_fd, json.dumps(_on_stage(trial)).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    try:
        said = _hear(read_fd, time.monotonic() + trial.seconds + 10)
    finally:
        os.close(read_fd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return replace(_understood(trial, said), is_live=is_live, address=trial.address)


def _hear(fd: int, deadline: float) -> bytes:
    """All that the other process says, or what it had said by then."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
        part = os.read(fd, _LONGEST_REPORT)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _is_live(trial: Trial) -> bool:
    """Whether somebody listens at its address, if that is an address of this machine."""
    if trial.address not in trial.addresses:
        return False
    try:
        with _bound(trial.address) as asked:
            asked.connect((trial.address, trial.port))
            introduction.introduce(asked, trial.target.proxies)
    except OSError:
        return False
    return True


def is_here(address: str) -> bool:
    """Whether an interface of this machine has the address."""
    try:
        _bound(address).close()
    except OSError:
        return False
    return True


def _bound(address: str) -> socket.socket:
    """A socket from which no packet goes to another machine that has the address. Raises OSError."""
    asked = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        asked.settimeout(1)
        asked.bind((address, 0))
    except OSError:
        asked.close()
        raise
    return asked


def _understood(trial: Trial, said: bytes) -> Outcome:
    name, port = trial.probe.service, trial.port
    try:
        found = json.loads(said)
    except ValueError:
        return Outcome(name, port, False, f"no end in sight after {trial.seconds:.0f} s")
    if "code" in found:
        raise _ERRORS.get(found["code"], VirtError)(found["message"], hint=found["hint"])
    return Outcome(name, port, found["ok"], found["told"], tuple(found["evidence"]))


# ---- in the other process


def _on_stage(trial: Trial) -> dict[str, object]:
    try:
        return _visit(trial) if trial.wants_live else _perform(trial)
    except VirtError as error:
        return {"code": error.code, "message": error.message, "hint": error.hint}
    except OSError as error:
        said = f"cannot try {trial.probe.service} of {trial.domain}: {error}"
        return {"code": ApplyError.code, "message": said, "hint": None}


def _visit(trial: Trial) -> dict[str, object]:
    """Be a client of who listens there now."""
    tree_fd = inside.open_tree(trial.root, trial.domain)
    introduction.begin(trial.port, trial.target.proxies)
    is_ok, told = _ask(_call(trial, trial.login, tree_fd), None)
    told = printable(told, "" if trial.login is None else trial.login.password)
    return {"ok": is_ok, "told": told, "evidence": []}


def _call(trial: Trial, login: Login | None, tree_fd: int) -> Call:
    return Call(
        trial.address,
        trial.port,
        trial.domain,
        trial.probe,
        login,
        seconds=trial.seconds,
        tree_fd=tree_fd,
    )


def _perform(trial: Trial) -> dict[str, object]:
    network.leave(dict.fromkeys((*trial.addresses, trial.address)))
    mount_fd = scene.cover(trial.root, trial.domain)
    login = trial.login
    if login is None and trial.probe.login:
        login = scene.add_account(mount_fd, trial.domain, trial.uid_base).login
    log = scene.listen_to_log(mount_fd)
    tree_fd = os.dup(mount_fd)
    with _performing(trial, mount_fd) as performance:
        call = _call(trial, login, tree_fd)
        is_ok, told = _ask(call, None if trial.listens else performance)
        evidence = [] if is_ok else _evidence(trial, performance, log)
    told = printable(told, "" if login is None else login.password)
    return {"ok": is_ok, "told": told, "evidence": evidence}


class _Performance:
    """What is heard of a program on its stage: how it and its like ended, and what a daemon said."""

    def __init__(self, report_fd: int, said_fd: int) -> None:
        self._report_fd = report_fd
        self._said_fd = said_fd
        self._reported = b""

    def reports(self, seconds: float) -> list[tuple[str, int]]:
        """All so far; if there is none that is new, after these seconds."""
        if select.select([self._report_fd], [], [], seconds)[0]:
            self._reported += os.read(self._report_fd, 4096) or b"over 0\n"
        words = (line.split() for line in self._reported.decode().splitlines())
        return [(word, int(number)) for word, number in dict.fromkeys(map(tuple, words))]

    def said(self) -> list[str]:
        try:
            text = os.read(self._said_fd, _LONGEST_REPORT)
        except BlockingIOError:
            return []
        return [
            found
            for line in text.decode(errors="replace").splitlines()
            if (found := printable(line))
        ]


@contextlib.contextmanager
def _performing(trial: Trial, mount_fd: int) -> Iterator[_Performance]:
    """The program, on its stage."""
    listener = _listener(trial) if trial.listens or trial.waits else None
    report_fd, tell_fd = os.pipe2(os.O_NONBLOCK)
    said_fd, say_fd = os.pipe2(os.O_NONBLOCK)
    performer = Performer(trial.target, mount_fd, listener, tell_fd, say_fd, waits=trial.waits)
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWIPC)
    pid = os.fork()
    if pid == 0:
        performer.run()
    for fd in (mount_fd, tell_fd, say_fd):
        os.close(fd)
    if listener is not None:
        listener.close()
    try:
        yield _Performance(report_fd, said_fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _listener(trial: Trial) -> socket.socket:
    family = socket.AF_INET6 if ":" in trial.address else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((trial.address, trial.port))
    found.listen(16)
    return found


def _ask(call: Call, daemon: _Performance | None) -> tuple[bool, str]:
    """Whether the client was content, and what it saw; nothing that a service answers is an error of ours."""
    resource.setrlimit(resource.RLIMIT_DATA, (_ROOM, _ROOM))
    try:
        if daemon is not None:
            _await(call, daemon)
        return True, clients.ask(call)
    except Refused as refused:
        return False, str(refused)
    except MemoryError:
        return False, "its answer has no end"
    except TimeoutError:
        return False, f"no answer in {call.seconds:.0f} s"
    except OSError as error:
        return False, f"the connection ended: {error.strerror or error}"
    except Exception as error:  # noqa: BLE001  the libraries' clients raise what they like about what they read
        return False, f"{type(error).__name__}: {error}"


def _await(call: Call, daemon: _Performance) -> None:
    """Until a daemon listens. Raises Refused where it has ended, or does not in time."""
    deadline = time.monotonic() + call.seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection((call.address, call.port), 1).close()
        except OSError:
            if {"over", "stage", "start"} & {word for word, _ in daemon.reports(0.05)}:
                raise Refused(f"it ended, and nobody listens on port {call.port}") from None
        else:
            return
    raise Refused(f"nobody listens on port {call.port} after {call.seconds:.0f} s")


def _evidence(trial: Trial, performance: _Performance, log: socket.socket | None) -> list[str]:
    """What the program said and how it ended; both come after its answer."""
    reports = performance.reports(_SETTLING)
    return [*performance.said()[-_LINES:], *_ends(reports, trial), *_logged(log)]


def _ends(reports: list[tuple[str, int]], trial: Trial) -> list[str]:
    """How the program ended, where that tells something: it was not there, a status, a signal."""
    program = os.fsdecode(trial.target.path)
    found = []
    for word, number in reports:
        match word, number:
            case ("ended", 126 | 0 | -9) | ("over", _):
                continue
            case "ended", status if status > 0:
                found.append(f"{program} ended with status {status}")
            case "ended", status:
                found.append(f"{program} was killed by {signal.Signals(-status).name}")
            case "start", errno:
                found.append(f"cannot run {program}: {os.strerror(errno)}")
            case _, errno:
                found.append(f"cannot enter the tree: {os.strerror(errno)}")
    return found


def _logged(log: socket.socket | None) -> list[str]:
    found: list[str] = []
    if log is None:
        return found
    with contextlib.suppress(BlockingIOError):
        while len(found) < _LINES:
            text = log.recv(8192).decode(errors="replace").partition(">")[2]
            found.append(f"log: {printable(text)}")
    return found
