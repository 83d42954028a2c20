"""`virt services`: what is declared to be served, and the routes files of it."""

import typer

from virttools.cli.output import Output
from virttools.domains import services as domains
from virttools.serve import services

app = typer.Typer(
    help="List the services that domains declare; write virtuald's routes files.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog="Example: virt services sync",
)


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="services")


@app.callback()
def services_(ctx: typer.Context) -> None:
    """List the services that domains declare."""
    if ctx.invoked_subcommand is not None:
        return
    output: Output = ctx.obj
    found = domains.declared(output.settings.root)
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
        output.result("services", {"services": data})
    elif not found:
        output.note("no domain declares a service; virt-manifest(5), services, tells how")
    else:
        rows = [
            (one.service.name, one.port(), one.domain, " ".join(one.addresses) or "-",
             one.service.user, one.service.program)
            for one in found
        ]  # fmt: skip
        output.table(("service", "port", "domain", "addresses", "user", "program"), rows)
    for problem in services.problems(found):
        output.note(f"warning: {problem}")


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
