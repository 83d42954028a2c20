"""virtuald under inetd: a connection's local address chooses the tree its program runs in."""

import _socket
import os
import stat
import sys

from virttools.enter import accounts, environment, inside, program
from virttools.enter.execute import Entrance, enter
from virttools.errors import (
    ConfigError,
    NeedsPrivilege,
    Problem,
    UnknownDomain,
    UsageError,
    VirtError,
)
from virttools.serve import routes
from virttools.serve.routes import Routes

_DAEMON_ERR = 3 << 3 | 3
"""LOG_DAEMON | LOG_ERR of <syslog.h>."""

HELP = """\
Usage: virtuald CONF PROGRAM [ARGUMENT]...
       virtuald --check CONF
       virtuald --explain ADDRESS CONF

Under inetd: run PROGRAM inside the tree that CONF names for the connection's local address.
A line of CONF is `ADDRESS DIR` or `default DIR`. --check reads CONF and reports every fault,
--explain prints the tree for one address. Messages go to syslog (daemon), never to the client.

Exit status: 78 CONF is wrong, 68 no route, 77 not permitted, 126 PROGRAM cannot be run,
127 it is not there; else PROGRAM's own.

Example (inetd.conf):
ftp stream tcp nowait root /usr/bin/virtuald virtuald /virtual/conf.ftp /usr/sbin/vsftpd
"""


class _Log:
    """A connection to syslogd, made outside; from inside a tree sending is one system call."""

    __slots__ = ("prefix", "socket")

    def __init__(self) -> None:
        self.prefix = f"<{_DAEMON_ERR}>virtuald[{os.getpid()}]: ".encode()
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:  # noqa: SIM105  contextlib would be loaded for every connection
            self.socket.connect("/dev/log")
        except OSError:
            pass  # no syslogd: the exit status still tells

    def write(self, message: str) -> None:
        text = message.encode("utf-8", "backslashreplace")
        if not stat.S_ISSOCK(os.fstat(2).st_mode):
            os.write(2, b"virtuald: " + text + b"\n")
        try:  # noqa: SIM105
            self.socket.send(self.prefix + text)
        except OSError:
            pass  # not connected


def main(words: list[str]) -> int:
    """Serve `virtuald WORDS…`; comes back with an answer to an option, or a failure logged.

    An option's failure is raised as VirtError, for a person to read.
    """
    if words[:1] == ["--help"]:
        sys.stdout.write(HELP)
        return 0
    if words[:1] == ["--check"] and len(words) == 2:
        return _check(words[1])
    if words[:1] == ["--explain"] and len(words) == 3:
        return _explain(words[1], words[2])
    log = _Log()
    try:
        return _serve(words, log)
    except VirtError as error:
        faults = error.problems if isinstance(error, ConfigError) else ()
        log.write("; ".join((error.message, *map(str, faults))))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  a traceback would go to the client
        log.write(f"internal error: {type(error).__name__}: {error}")
        return VirtError.exit_code


def _serve(words: list[str], log: _Log) -> int:
    if len(words) < 2:
        raise UsageError("cannot serve: the arguments must be CONF PROGRAM [ARGUMENT]...")
    if os.geteuid() != 0:
        raise NeedsPrivilege("cannot enter a tree: only root may call chroot(2)")
    address = _local_address()
    folder = _read(words[0]).find(_packed(address))
    if folder is None:
        raise UnknownDomain(f"cannot serve {address}: {words[0]} has no route for it")
    tree_fd = _open_folder(folder)
    account = accounts.root(b"", b"")
    env = environment.build(dict(os.environb), account, [])
    path = program.find(tree_fd, words[1], environment.PATH)
    entrance = Entrance(tree_fd, path, words[1:], env=env)
    entrance.fail_fd, entrance.prefix = log.socket.fileno(), log.prefix
    return enter(entrance)


def _local_address() -> str:
    """The address that the client of descriptor 0 connected to, as getsockname(2) has it."""
    try:
        connection = _socket.socket(fileno=0)
    except OSError as error:
        raise UsageError(
            f"cannot tell the local address: descriptor 0 is no connection: {error.strerror}"
        ) from error
    try:
        name = connection.getsockname()
    finally:
        connection.detach()
    if not isinstance(name, tuple):
        raise UsageError("cannot tell the local address: descriptor 0 is no internet connection")
    return str(name[0])


def _packed(address: str) -> bytes:
    packed = routes.pack(address)
    if packed is None:
        raise UsageError(f"cannot read {address!r}: not an IPv4 or IPv6 address")
    return packed


def _read(conf: str) -> Routes:
    try:
        with open(conf, "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            text = file.read()
    except OSError as error:
        raise ConfigError(f"cannot read {conf}: {error.strerror}") from error
    if found.st_uid != 0 or found.st_mode & 0o022:
        raise NeedsPrivilege(
            f"cannot trust {conf}: others may change it",
            hint=f"`chown root {conf}` and `chmod go-w {conf}`",
        )
    return routes.parse(os.fsdecode(text), conf)


def _open_folder(folder: str) -> int:
    try:
        tree_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        parent_fd = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=tree_fd)
    except OSError as error:
        raise ConfigError(f"cannot enter {folder}: {error.strerror}") from error
    inside.check_owner(parent_fd, os.path.dirname(folder.rstrip("/")) or "/")
    inside.check_owner(tree_fd, folder)
    os.close(parent_fd)
    return tree_fd


def _check(conf: str) -> int:
    found = _read(conf)
    folders = found.folders()
    problems = [*found.hidden(), *(p for folder in folders if (p := _fault(conf, folder)))]
    if problems:
        raise ConfigError(f"cannot use {conf} as it is", problems=tuple(problems))
    sys.stdout.write(f"{conf}: {len(found.routes)} addresses, {len(folders)} trees\n")
    return 0


def _fault(conf: str, folder: str) -> Problem | None:
    try:
        os.close(_open_folder(folder))
    except VirtError as error:
        return Problem(conf, 0, error.message)
    return None


def _explain(address: str, conf: str) -> int:
    folder = _read(conf).find(_packed(address))
    if folder is None:
        raise UnknownDomain(f"cannot serve {address}: {conf} has no route for it")
    sys.stdout.write(f"{folder}\n")
    return 0
