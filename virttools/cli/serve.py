"""`virt serve`: starts the resident server; asks a running one how it is. Loads no typer: it stays in memory."""

import marshal
import os
import sys
import time

from virttools import __version__, settings
from virttools.errors import Busy, ConfigError, NeedsPrivilege, UnknownDomain, UsageError
from virttools.serve import asking
from virttools.serve.messages import counted
from virttools.serve.places import SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from virttools.cli.output import Output
    from virttools.serve.board import Board
    from virttools.serve.status import Running, Status
    from virttools.settings import Settings

HELP = """\
Usage: virt serve [--inetd FILE] [--spawners N] [--drain SECONDS] [--log syslog|stderr]
       virt serve --check [--inetd FILE]
       virt serve --status
       virt serve --metrics FILE
       virt serve --reload
       virt serve --leave DOMAIN

Answer the services of all domains, each connection by a fresh process inside its domain.
What is served is in the domains' manifests, or in an inetd.conf. It stays in the foreground.

  --inetd FILE     serve an inetd.conf; lines that run virtuald are served directly
  --spawners N     processes that accept [default: one per core]
  --drain SECONDS  how long SIGTERM waits for connections to end [default: 30]
  --log WHERE      syslog or stderr [default: syslog where there is one]
  --check          read all that is declared, and report what is wrong
  --status         what the running server serves, and its counters
  --metrics FILE   write the counters as a Prometheus text file; - is standard output
  --reload         have the running server read all that is declared, and tell what came of it
  --leave DOMAIN   have it serve a domain no more and end its daemons, until a --reload
  -h, --help       print this

Domains that are created, changed or removed are taken in by themselves.
Signals: HUP reloads, TERM drains and ends, USR2 replaces the program and keeps all connections.

Example: virt serve --log stderr
"""
_MOST_SPAWNERS = 64
_LOOKS = 0.05


class Options:
    """What the words after `virt serve` ask for."""

    __slots__ = (
        "drain", "inetd", "is_check", "is_reload", "is_status", "leave", "log", "metrics",
        "spawners",
    )  # fmt: skip

    def __init__(self) -> None:
        self.inetd: str | None = None
        self.leave: str | None = None
        self.metrics: str | None = None
        self.is_check = self.is_reload = self.is_status = False
        self.log = ""
        self.drain = 30
        self.spawners = 0


def main(words: list[str], *, root: str | None, as_json: bool) -> int:
    """Serve one `virt serve WORDS…`. Raises VirtError."""
    if words[:1] in (["--help"], ["-h"]):
        sys.stdout.write(HELP)
        return 0
    options = read(words)
    here = settings.load(os.environ, root=root)
    if options.is_reload:
        return _reload(here, as_json=as_json)
    if options.leave is not None:
        return _leave(here, options.leave, as_json=as_json)
    if options.is_status or options.metrics is not None:
        return _tell(here, options, as_json=as_json)
    if os.geteuid() != 0:
        raise NeedsPrivilege("cannot serve: only root may enter trees", hint="use sudo")
    if options.is_check:
        board = _board(here, options)
        for note in board.notes:
            sys.stderr.write(f"{note}\n")
        counts = [
            counted(len(board.endpoints), "endpoint"),
            counted(len(board.targets), "service"),
            *([counted(len(board.daemons), "daemon")] if board.daemons else []),
        ]
        sys.stdout.write(f"{', '.join(counts)}\n")
        return 1 if board.notes else 0
    return _serve(here, options, words)


def read(words: list[str]) -> Options:
    """Read the options. Raises UsageError."""
    options = Options()
    rest = list(words)
    while rest:
        name, has_value, value = rest.pop(0).partition("=")
        if name in ("--check", "--reload", "--status") and not has_value:
            options.is_check |= name == "--check"
            options.is_reload |= name == "--reload"
            options.is_status |= name == "--status"
            continue
        if name not in ("--inetd", "--leave", "--metrics", "--log", "--drain", "--spawners"):
            raise _wrong(f"cannot read {name!r}: there is no such option")
        if not has_value:
            if not rest:
                raise _wrong(f"cannot read {name}: it needs a value")
            value = rest.pop(0)
        _set(options, name, value)
    return options


def _set(options: Options, name: str, value: str) -> None:
    if name == "--inetd":
        options.inetd = os.path.abspath(value)
    elif name == "--leave":
        options.leave = value
    elif name == "--metrics":
        options.metrics = value if value == "-" else os.path.abspath(value)
    elif name == "--log":
        if value not in ("syslog", "stderr"):
            raise _wrong(f"cannot read --log {value}: it must be syslog or stderr")
        options.log = value
    elif name == "--drain":
        options.drain = _number(name, value, 0, 86400)
    else:
        options.spawners = _number(name, value, 1, _MOST_SPAWNERS)


def _number(name: str, value: str, least: int, most: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 9 and least <= int(value) <= most):
        raise _wrong(f"cannot read {name} {value}: it must be a number from {least} to {most}")
    return int(value)


def _wrong(message: str) -> UsageError:
    return UsageError(message, hint="virt serve --help")


def _board(here: "Settings", options: Options, left: "Collection[str]" = ()) -> "Board":
    from virttools.domains import host_services, serving

    now = settings.load(os.environ, root=here.root)  # a reload takes what it says by then
    if options.inetd is not None:
        board = serving.inetd(options.inetd, allow_host=now.allow_host)
    else:
        board = serving.declared(now.root, left)
    return board if now.file is None else host_services.added(board, now.file)


def _control(here: "Settings", options: Options) -> str:
    """Where a running server answers: below the root, which every `virt` knows."""
    if options.inetd is not None and not os.path.isdir(f"{here.root}/.virt"):
        return ""
    return f"{here.root}/{SOCKET}"


def _serve(here: "Settings", options: Options, words: list[str]) -> int:
    from virttools.serve import successor, supervisor
    from virttools.serve.journal import Journal

    control = _control(here, options)
    is_successor = successor.STATE in os.environ
    if control and not is_successor and asking.ask(control) is not None:
        raise Busy(
            f"cannot serve {here.root}: a server is there already",
            hint="`virt serve --status` tells how it is; `virt serve --reload` has it reload",
        )
    to_stderr = options.log == "stderr" or (not options.log and not os.path.exists("/dev/log"))
    command = successor.own_command()
    chosen = supervisor.Settings(
        lambda: _board(here, options, chosen.left),
        control=control,
        cores=options.spawners or len(os.sched_getaffinity(0)),
        drain_seconds=options.drain,
        journal=Journal(to_stderr=to_stderr),
        successor=command,
        check=[*command, "--check"],
        followed=() if options.inetd is not None else (here.root, f"{here.root}/.virt/records"),
    )
    return supervisor.Supervisor(chosen).run()


def _tell(here: "Settings", options: Options, *, as_json: bool) -> int:
    import site

    from virttools.serve import metrics, status

    found = _ask(here)
    if options.metrics == "-":
        sys.stdout.write(metrics.text(found))
    elif options.metrics is not None:
        metrics.write(options.metrics, found)
    if not options.is_status:
        return 0
    output = _output(here, as_json=as_json)
    if as_json:
        output.result("serve", found.document())
        return 0
    output.note(status.headline(found))
    if found.trouble:
        output.note(f"warning: the last reload was refused: {found.trouble}")
    if output.is_terminal():
        site.main()  # the server starts without site-packages (-S); what draws the table lies there
    tables = (
        (status.HEADING, status.rows(found)),
        (status.PERIODIC_HEADING, status.periodic_rows(found)),
        (status.DAEMON_HEADING, status.daemon_rows(found, time.time())),
    )
    output.tables([table for table in tables if table[1]])
    return 0


def _output(here: "Settings", *, as_json: bool) -> "Output":
    from virttools.cli.output import Output

    return Output(
        here, json=as_json, verbose=False, quiet=False, color="NO_COLOR" not in os.environ
    )


def _ask(here: "Settings", wish: bytes = b"") -> "Status":
    """What the running server says. Raises UnknownDomain where none runs."""
    told = asking.ask(f"{here.root}/{SOCKET}", wish)
    if told is None:
        raise UnknownDomain(
            f"cannot ask the server of {here.root}: none runs", hint="`virt serve` starts one"
        )
    return _read_status(told)


def _reload(here: "Settings", *, as_json: bool) -> int:
    """Have the running server reload, and wait until it has. Raises ConfigError where it refuses."""
    _ask(here, asking.RELOAD)
    while (found := _ask(here)).is_reloading:
        time.sleep(_LOOKS)
    if found.trouble:
        raise ConfigError(
            f"cannot reload, the old set stays: {found.trouble}",
            hint="`virt serve --check` tells all that is wrong, and so does the server's log",
        )
    counts = (
        counted(len(found.served) + len(found.periodic), "service"),
        counted(len(found.daemons), "daemon"),
    )
    output = _output(here, as_json=as_json)
    output.result("serve", found.document(), [f"reloaded: {', '.join(counts)}"])
    return 0


def _leave(here: "Settings", name: str, *, as_json: bool) -> int:
    """Have the running server serve a domain no more, and wait until its daemons have ended.

    Raises UnknownDomain, ConfigError where an inetd.conf has it served.
    """
    from virttools.enter import inside

    if not inside.is_domain(name) or not os.path.isdir(f"{here.root}/{name}"):
        raise UnknownDomain(
            f"cannot leave {name}: there is no such domain below {here.root}",
            hint="`virt list` names those that are there",
        )
    _ask(here, asking.LEAVE + name.encode())
    while (found := _ask(here)).is_reloading or any(one.domain == name for one in found.daemons):
        time.sleep(_LOOKS)
    if any(one.domain == name for one in found.served):
        why = found.trouble or "it serves an inetd.conf, which names it"
        raise ConfigError(f"cannot leave {name}: {why}")
    said = f"{name} is served no more, until `virt serve --reload`"
    _output(here, as_json=as_json).result("serve", found.document(), [said])
    return 0


def _read_daemon(
    name: str, domain: str, state: str, pid: int, up: float, restarts: int, last: str
) -> "Running":
    from virttools.serve import status

    since = int(time.time() - up) if up else 0
    return status.Running(
        daemon=name,
        domain=domain,
        state=state,
        pid=pid,
        since=since,
        restarts=restarts,
        last=last,
    )


def _read_status(told: bytes) -> "Status":
    from virttools.serve import ledger, status

    pid, uptime, spawners, counts, rows, fleet, *more = marshal.loads(told)  # noqa: S302  root's own socket
    is_reloading, trouble, lost = more[0] if more else (False, "", 0)  # an older server tells less
    served, periodic = [], []
    for service, domain, every, places, row in rows:
        refused = dict(zip(ledger.REASONS, row[ledger.REFUSED :], strict=False))
        if every:
            periodic.append(
                status.Periodic(
                    command=service,
                    domain=domain,
                    every=every,
                    runs=row[ledger.ACCEPTED],
                    failed=row[ledger.FAILED],
                    is_running=row[ledger.LIVE] > 0,
                )
            )
            continue
        served.append(
            status.Served(
                service=service,
                domain=domain,
                listens=tuple(places),
                live=row[ledger.LIVE],
                served=row[ledger.ACCEPTED],
                failed=row[ledger.FAILED],
                refused=tuple(refused.items()),
            )
        )
    return status.Status(
        version=__version__,
        pid=pid,
        uptime=int(uptime),
        spawners=len(spawners),
        reloads=counts[0],
        failed_reloads=counts[1],
        unrouted=counts[2],
        lost=lost,
        is_reloading=is_reloading,
        trouble=trouble,
        served=tuple(served),
        periodic=tuple(periodic),
        daemons=tuple(_read_daemon(*row) for row in fleet),
    )
