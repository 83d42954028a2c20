"""`virt services`: what is declared to be served, and the routes files of it."""

from collections.abc import Iterable

import typer

from virttools.cli.output import Output
from virttools.domains import services as domains
from virttools.serve import services
from virttools.serve.services import Resident

app = typer.Typer(
    help="List the services and daemons that domains declare; write virtuald's routes files.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog="Example: virt services sync",
)


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="services")


@app.callback()
def services_(ctx: typer.Context) -> None:
    """List the services and daemons that domains declare."""
    if ctx.invoked_subcommand is not None:
        return
    output: Output = ctx.obj
    whole = domains.declared(output.settings.root)
    found = whole.services
    data = [
        {
            "service": one.service.name,
            "domain": one.domain,
            "port": one.service.port,
            "protocol": one.service.protocol,
            "every": one.service.every,
            "addresses": list(one.addresses) if one.service.port else [],
            "user": one.service.user,
            "program": one.service.program,
        }
        for one in found
    ]
    if output.json:
        output.result("services", {"services": data, "daemons": _daemons(whole.daemons)})
    elif not found and not whole.daemons:
        output.note("no domain declares a service; virt-manifest(5), services, tells how")
    if not output.json:
        output.tables([table for table in _tables(whole) if table[1]])
    for problem in services.problems(found):
        output.note(f"warning: {problem}")


def _tables(whole: domains.Whole) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """The services, and the daemons, each with its heading."""
    served = [
        (one.service.name, one.port(), one.domain, " ".join(one.addresses) or "-",
         one.service.user, one.service.program)
        for one in whole.services
    ]  # fmt: skip
    daemons = [
        (one.daemon.name, " ".join(map(str, one.daemon.ports)) or "-", one.domain,
         one.daemon.user, one.daemon.program)
        for one in whole.daemons
    ]  # fmt: skip
    return [
        (("service", "port", "domain", "addresses", "user", "program"), list(served)),
        (("daemon", "ports", "domain", "user", "program"), list(daemons)),
    ]


def _daemons(found: Iterable[Resident]) -> list[dict[str, object]]:
    return [
        {
            "daemon": one.daemon.name,
            "domain": one.domain,
            "ports": list(one.daemon.ports),
            "user": one.daemon.user,
            "program": one.daemon.program,
        }
        for one in found
    ]


@app.command(epilog="Example: virt services sync")
def sync(ctx: typer.Context) -> None:
    """Write a routes file conf.SERVICE for each service, and remove those that nothing needs."""
    output: Output = ctx.obj
    done = domains.sync(output.settings.root)
    lines = [f"wrote {name}" for name in done.written]
    lines += [f"removed {name}" for name in done.removed]
    data = {
        "written": list(done.written),
        "removed": list(done.removed),
        "unchanged": list(done.unchanged),
    }
    output.result("services sync", data, [] if output.quiet else lines)
