"""`virt log`: dev/log in the trees, whole and listened to; what was said there, read back."""

import json
import os
import sys
from typing import Annotated, Any

import typer

from virttools.cli import complete
from virttools.cli.output import Output
from virttools.errors import CheckFailed, UsageError
from virttools.manifest import names

app = typer.Typer(
    help="Log from inside: dev/log of every domain.",
    epilog="Example: virt log status",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Logs = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        envvar="VIRT_LOGS",
        help="The folder of the log files [default: /var/log/virt, or .virt/logs of another root].",
    ),
]

# What a command needs is imported in its body: `virt log serve` does not load what it never uses.


def logs_folder(output: Output, asked: str | None) -> str:
    """Where the log files lie: as asked, or as the root has it."""
    from virttools.devlog import places

    root = output.settings.root
    return os.path.abspath(asked or places.logs_folder(root, is_root=os.geteuid() == 0))


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="log")


@app.command(epilog="Example: virt log status || virt log relink --all")
def status(
    ctx: typer.Context,
    domains: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOMAIN]...", help="Only these.", autocompletion=complete.domains),
    ] = None,
) -> None:
    """Say for every domain whether its dev/log is fresh; the status is 1 where one is not."""
    from virttools.devlog.freshness import State
    from virttools.domains import devlogs

    output: Output = ctx.obj
    found = devlogs.status(output.settings.root, _names(domains))
    if output.json:
        rows = [
            {
                "domain": one.domain,
                "devlog": one.devlog,
                "socket": f"{output.settings.root}/{one.source}",
                "state": one.state,
                "cause": one.cause,
            }
            for one in found
        ]
        output.result("log status", {"domains": rows})
    else:
        output.table(
            ("domain", "devlog", "state", "why"),
            [(one.domain, one.devlog, one.state, one.cause or "-") for one in found],
        )
    if any(one.state is not State.FRESH for one in found):
        raise typer.Exit(CheckFailed.exit_code)


@app.command(epilog="Example: virt log relink --all")
def relink(
    ctx: typer.Context,
    domains: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DOMAIN]...", help="What to link anew.", autocompletion=complete.domains
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every domain.")] = False,
    bind: Annotated[
        bool,
        typer.Option("--bind", help="Mount the socket where a tree is on another file system."),
    ] = False,
) -> None:
    """Link dev/log anew where it is not the socket that it should be."""
    from virttools.domains import devlogs

    output: Output = ctx.obj
    if every == bool(domains):
        raise UsageError(
            "cannot tell what to relink: name domains, or --all", hint="virt log relink --all"
        )
    found = devlogs.relink(output.settings.root, _names(domains), bind=bind)
    for one in found:
        if one.fault and len(found) == 1:
            raise one.fault
        if one.fault:
            _tell(output, one.fault.message, one.fault.hint)
    rows = [
        {
            "domain": one.domain,
            "relinked": one.is_new,
            "fault": one.fault.message if one.fault else None,
        }
        for one in found
    ]
    lines = [f"relinked {one.domain}" for one in found if one.is_new and not output.quiet]
    output.result("log relink", {"domains": rows}, lines)
    worst = max((one.fault.exit_code for one in found if one.fault), default=0)
    if worst:
        raise typer.Exit(worst)


@app.command(epilog="Example: virt log watch")
def watch(ctx: typer.Context) -> None:
    """Relink by itself whenever a log daemon binds its socket anew; runs until it is ended."""
    from virttools.domains import devlogs

    output: Output = ctx.obj
    for one in devlogs.watch(output.settings.root):
        if output.json:
            fault = one.fault.message if one.fault else None
            print(json.dumps({"domain": one.domain, "relinked": one.is_new, "fault": fault}))
        elif one.fault:
            _tell(output, one.fault.message, one.fault.hint)
        elif not output.quiet:
            print(f"relinked {one.domain}")
        sys.stdout.flush()


@app.command(epilog="Example: virt log setup && virt log setup --undo")
def setup(
    ctx: typer.Context,
    undo: Annotated[bool, typer.Option("--undo", help="Put back what was there.")] = False,
) -> None:
    """Make the host's own /dev/log a link to the shared socket, as the HOWTO has it."""
    from virttools.devlog import setup as host
    from virttools.domains import devlogs

    output: Output = ctx.obj
    target = devlogs.shared_socket(output.settings.root)
    is_new = host.undo(target) if undo else host.install(target)
    data = {"target": target, "undone" if undo else "linked": is_new}
    lines = []
    if is_new and not output.quiet:
        lines = [f"put back {host.LOG}"] if undo else [f"linked {host.LOG} -> {target}"]
    output.result("log setup", data, lines)
    if is_new:
        output.note(
            "a log daemon that was told to use the other socket must be started anew: "
            + ("as it was before" if undo else f"syslogd -p {target}")
        )


@app.command(epilog="Example: virt log tail --domain domain1.com -f")
def tail(
    ctx: typer.Context,
    domain: Annotated[
        str | None, typer.Option(help="Only this domain [default: all, in one].")
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", min=0, help="How many [default: 10].")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="None before: 10m, 2h, 3d ago; 15:04; 2026-11-20 15:04."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, one for each.")] = False,
    logs: Logs = None,
) -> None:
    """Print the last lines that were logged."""
    from virttools.devlog import places, reader

    output: Output = ctx.obj
    folder = logs_folder(output, logs)
    path = (
        places.domain_log(folder, names.domain(domain)) if domain else places.combined_log(folder)
    )
    moment = _moment(since)
    count = lines if lines is not None or moment is not None else 10
    if output.json and not follow:
        found = reader.last(path, count=count, since=moment)
        output.result("log tail", {"file": path, "lines": [_document(one) for one in found]})
        return
    read = reader.follow if follow else reader.last
    is_colored = output.is_terminal() and output.color
    for said in read(path, count=count, since=moment):
        if as_json or output.json:
            print(json.dumps(_document(said)), flush=follow)
        else:
            print(_colored(said) if is_colored else said.text, flush=follow)


@app.command(epilog="Example: virt log serve --rate 500 --forward journal")
def serve(
    ctx: typer.Context,
    logs: Logs = None,
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Write a file for each domain.")
    ] = True,
    combined: Annotated[
        bool, typer.Option("--combined/--no-combined", help="Write all into one file, too.")
    ] = True,
    forward: Annotated[
        str, typer.Option(metavar="WHERE", help="Pass all on to: syslog, journal, or a socket.")
    ] = "",
    rate: Annotated[
        int, typer.Option(min=0, help="Messages a second that a domain may send; 0: any number.")
    ] = 1000,
    burst: Annotated[int, typer.Option(min=1, help="Messages it may send at once.")] = 10_000,
    shared: Annotated[
        bool, typer.Option("--shared", help="Serve the shared socket as well.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option(help="Who the server becomes [default: virtlog, syslog or daemon]."),
    ] = None,
) -> None:
    """Receive what all domains log; in the foreground, until it is ended.

    HUP has it start anew and lose nothing, USR1 open its files anew.
    """
    from virttools.devlog import holder
    from virttools.devlog.receiver import Options
    from virttools.domains import log_server

    output: Output = ctx.obj
    _refuse_nowhere(forward, is_kept=files or combined)
    options = Options(
        root=output.settings.root,
        rate=rate,
        burst=burst,
        files=files,
        combined=combined,
        forward=forward,
    )
    wanted = log_server.Wanted(
        options=options, folder=logs_folder(output, logs), user=user, shared=shared
    )
    started = log_server.prepare(wanted)
    for fault in started.faults:
        _tell(output, fault.message, fault.hint)
    holder.become(started.state)


def _refuse_nowhere(forward: str, *, is_kept: bool) -> None:
    """Raise UsageError where what is received would go nowhere. is_kept: in files."""
    if forward and forward not in ("syslog", "journal") and not forward.startswith("/"):
        raise UsageError(
            f"cannot forward to {forward!r}: it is no place",
            hint="--forward syslog, journal, or the path of a socket",
        )
    if not is_kept and not forward:
        raise UsageError("cannot serve: without files and without --forward all would be lost")


def _names(domains: list[str] | None) -> list[str]:
    return list(dict.fromkeys(names.domain(text) for text in domains or ()))


def _moment(since: str | None) -> float | None:
    from virttools.devlog import reader

    if since is None:
        return None
    try:
        return reader.moment(since)
    except ValueError as error:
        raise UsageError(
            f"cannot understand --since {since!r}: it is no moment",
            hint="10m, 2h, 3d, 15:04, 2026-11-20, or 2026-11-20 15:04",
        ) from error


def _document(said: Any) -> dict[str, Any]:  # noqa: ANN401  reader.Said, which is not loaded here
    if said.line is None:
        return {"text": said.text}
    return {
        "time": said.line.time,
        "domain": said.line.domain,
        "facility": said.line.facility,
        "severity": said.line.severity,
        "uid": said.line.uid,
        "tag": said.line.tag,
        "pid": said.line.pid,
        "text": said.line.text,
    }


_BAD = {"emerg", "alert", "crit", "err"}


def _colored(said: Any) -> str:  # noqa: ANN401  as above
    """The words of the line, as they are without colour: it adds nothing that is not said."""
    line = said.line
    if line is None:
        return str(said.text)
    tone = "31" if line.severity in _BAD else {"warning": "33", "debug": "2"}.get(line.severity, "")
    head = f"\x1b[2m{line.time}\x1b[0m \x1b[36m{line.domain}\x1b[0m "
    rest = f"{line.facility}.{line.severity} uid={line.uid} {line.tag}[{line.pid}]: {line.text}"
    return head + (f"\x1b[{tone}m{rest}\x1b[0m" if tone else rest)


def _tell(output: Output, message: str, hint: str | None) -> None:
    """One domain's fault on stderr; the others go on."""
    if output.json:
        return
    print(f"virt: {message}", file=sys.stderr)
    if hint is not None:
        print(f"hint: {hint}", file=sys.stderr)
