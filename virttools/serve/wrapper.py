"""virtuald under inetd: a connection's local address chooses the tree its program runs in."""

import _socket
import os
import stat
import sys

from virttools.enter import accounts, environment, inside, program
from virttools.errors import (
    ConfigError,
    NeedsPrivilege,
    Problem,
    UnknownDomain,
    UsageError,
    VirtError,
)
from virttools.serve import become, conffile, connection, jail, routes, ucspi
from virttools.serve.become import Start
from virttools.serve.connection import Connection
from virttools.serve.routes import Routes
from virttools.tree.ground import open_checked

# <syslog.h>: LOG_DAEMON with LOG_ERR and LOG_INFO
_ERR = 3 << 3 | 3
_INFO = 3 << 3 | 6
_LARGEST_FILE = 16 * 2**20
"""Bytes of a tree's passwd or group that we are willing to read."""

HELP = """\
Usage: virtuald [-v] [-u USER] [--chroot] CONF PROGRAM [ARGUMENT]...
       virtuald --check CONF
       virtuald --explain ADDRESS CONF

Under inetd: run PROGRAM inside the tree that CONF names for the connection's local address.
A line of CONF is `ADDRESS DIR`, `ADDRESS:PORT DIR`, `NETWORK/BITS DIR` or `default DIR`; the first
that fits counts. Messages go to syslog (daemon), never to the client.

  -v, --verbose    log each connection
  -u, --user USER  become a user of the tree; else the ids stay what inetd made them
  --chroot         enter by chroot(2) alone, which root inside can leave
  --check          read CONF, look at its trees, and report every fault
  --explain        print the tree for ADDRESS, ADDRESS:PORT or [IPV6]:PORT
  --help           print this

Exit status: 78 CONF is wrong, 68 no route, 77 not permitted, 126 PROGRAM cannot be run,
127 it is not there; else PROGRAM's own.

Example (inetd.conf):
ftp stream tcp nowait root /usr/bin/virtuald virtuald /virtual/conf.ftp /usr/sbin/vsftpd
"""


class _Log:
    """A connection to syslogd, made outside; from inside a tree sending is one system call."""

    __slots__ = ("socket",)

    def __init__(self) -> None:
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:  # noqa: SIM105  contextlib would be loaded for every connection
            self.socket.connect("/dev/log")
        except OSError:
            pass  # no syslogd: the exit status still tells

    def prefix(self, priority: int) -> bytes:
        return f"<{priority}>virtuald[{os.getpid()}]: ".encode()

    def write(self, priority: int, message: str) -> None:
        text = program.shown(message).encode("utf-8", "backslashreplace")
        try:
            if not stat.S_ISSOCK(os.fstat(2).st_mode):
                os.write(2, b"virtuald: " + text + b"\n")
            self.socket.send(self.prefix(priority) + text)
        except OSError:
            pass  # not connected, or no descriptor 2


class _Call:
    """`virtuald [-v] [-u USER] [--chroot] CONF PROGRAM ARGS…`; PROGRAM's own options are left alone."""

    __slots__ = ("argv", "conf", "is_chroot", "is_verbose", "user")

    def __init__(self, words: list[str]) -> None:
        self.is_verbose = self.is_chroot = False
        self.user: str | None = None
        position = 0
        while position < len(words) and words[position].startswith("-"):
            word = words[position]
            if word in ("-u", "--user") and position + 1 < len(words):
                position += 1
                self.user = words[position]
            elif word in ("-v", "--verbose"):
                self.is_verbose = True
            elif word == "--chroot":
                self.is_chroot = True
            elif word in ("--check", "--explain", "--help"):
                raise UsageError(
                    f"cannot answer {word}: the words must be those of virtuald --help"
                )
            else:
                raise UsageError(f"cannot serve: there is no option {word}", hint="virtuald --help")
            position += 1
        if len(words) < position + 2:
            raise UsageError("cannot serve: the arguments must be CONF PROGRAM [ARGUMENT]...")
        self.conf, self.argv = words[position], words[position + 1 :]


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
        return _serve(_Call(words), log)
    except VirtError as error:
        faults = error.problems if isinstance(error, ConfigError) else ()
        hint = (f"hint: {error.hint}",) if error.hint else ()
        log.write(_ERR, "; ".join((error.message, *map(str, faults), *hint)))
        status = error.exit_code
    except Exception as error:  # noqa: BLE001  a traceback would go to the client
        log.write(_ERR, f"internal error: {type(error).__name__}: {error}")
        status = VirtError.exit_code
    connection.drop()
    return status


def _serve(call: _Call, log: _Log) -> int:
    if os.geteuid() != 0:
        raise NeedsPrivilege(
            "cannot enter a tree: only root may",
            hint="have inetd start virtuald as root; `virtuald -u USER` drops that inside",
        )
    found = connection.read()
    folder = _folder(call.conf, found)
    tree_fd, is_host = _open_folder(folder)
    if not is_host:
        _belong(folder)
    account = None if call.user is None else _account(tree_fd, call.user, folder)
    path = program.find(tree_fd, call.argv[0], environment.PATH)
    made = Start(tree_fd, path, call.argv, _environment(account, found))
    made.account = account
    if is_host:
        made.way = become.HOST
    elif call.is_chroot:
        made.way = become.CHROOT
    made.hostname = _hostname(tree_fd, folder)
    made.fail_fd, made.prefix = log.socket.fileno(), log.prefix(_ERR)
    if call.is_verbose:
        log.write(_INFO, f"connection from {_end(found.remote)} to {_end(found.local)}: {folder}")
    return become.become(made)


def _belong(folder: str) -> None:
    """Where domains share a log socket, be known for the domain's (DESIGN 8)."""
    root, _, domain = folder.rstrip("/").rpartition("/")
    if inside.is_domain(domain) and os.path.lexists(f"{root}/log"):
        from virttools.devlog import belonging

        belonging.join(domain)


def _folder(conf: str, found: Connection) -> str:
    read = _read(conf)
    packed = routes.pack(found.local[0].partition("%")[0])
    folder = None if packed is None else read.find(packed, found.local[1])
    if folder is None:
        raise UnknownDomain(f"cannot serve {_end(found.local)}: {conf} has no route for it")
    if found.is_shared and len(read.folders()) > 1:
        # The program would be given the datagrams of all domains, and answer for one.
        raise ConfigError(
            f"cannot serve {_end(found.local)}: its socket takes datagrams to every address",
            hint="give inetd one line for each address, as in `192.0.2.1:tftp dgram udp wait …`",
        )
    return folder


def _end(place: tuple[str, int] | None) -> str:
    if place is None:
        return "nobody"
    address = ucspi.shown(place[0])
    return f"[{address}]:{place[1]}" if ":" in address else f"{address}:{place[1]}"


def _environment(account: accounts.Account | None, found: Connection) -> dict[bytes, bytes]:
    environ = dict(os.environb)
    if environment.is_coerced(environ):
        try:
            with open("/proc/self/environ", "rb", buffering=0) as file:
                environ = environment.given(environ, file.read())
        except OSError:
            del environ[b"LC_CTYPE"]
    env = environment.build(environ, account or accounts.root(b"", b""), [])
    env.update(ucspi.variables(found.protocol, found.local, found.remote))
    return env


def _account(tree_fd: int, user: str, folder: str) -> accounts.Account:
    passwd = inside.read(tree_fd, "/etc/passwd", _LARGEST_FILE) or b""
    group = inside.read(tree_fd, "/etc/group", _LARGEST_FILE) or b""
    account = accounts.find(passwd, group, os.fsencode(user))
    if account is None:
        raise ConfigError(f"cannot become {user}: {folder} has no such user in its /etc/passwd")
    return account


def _hostname(tree_fd: int, folder: str) -> bytes:
    """What the tree's /etc/hostname says, or else the name of its folder."""
    said = (inside.read(tree_fd, "/etc/hostname", 1024) or b"").strip().decode("ascii", "replace")
    is_name = inside.is_domain(said.lower())
    return jail.hostname(said if is_name else os.path.basename(folder.rstrip("/")))


def _read(conf: str) -> Routes:
    text, found = conffile.read(conf)
    if found.st_uid != 0 or found.st_mode & 0o022:
        raise NeedsPrivilege(
            f"cannot trust {conf}: others may change it",
            hint=f"`chown root {conf}` and `chmod go-w {conf}`",
        )
    return routes.parse(os.fsdecode(text), conf)


def _open_folder(folder: str) -> tuple[int, bool]:
    """The tree, which nobody but root can change or swap, and whether it is the host itself."""
    try:
        tree_fd = open_checked(folder, make=False)
    except OSError as error:
        raise ConfigError(f"cannot enter {folder}: {error.strerror}") from error
    is_host = os.path.samestat(os.fstat(tree_fd), os.stat("/"))
    if is_host:
        from virttools import settings

        if not settings.load({}).allow_host:
            raise NeedsPrivilege(
                f"cannot enter {folder}: it is the host itself",
                hint=f"`allow_host = true` in {settings.FILE} permits it",
            )
    return tree_fd, is_host


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
        os.close(_open_folder(folder)[0])
    except VirtError as error:
        return Problem(conf, 0, error.message)
    return None


def _explain(place: str, conf: str) -> int:
    asked = routes.endpoint(place)
    if asked is None:
        raise UsageError(f"cannot read {place!r}: not an IPv4 or IPv6 address, nor one with a port")
    folder = _read(conf).find(*asked)
    if folder is None:
        raise UnknownDomain(f"cannot serve {place}: {conf} has no route for it")
    sys.stdout.write(f"{folder}\n")
    return 0
