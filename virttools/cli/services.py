"""`virt services` and `virt render`: what is declared to be served, and it as text for super-servers."""

import os
from typing import Annotated

import typer

from virttools.cli.links import installed
from virttools.cli.output import Output
from virttools.domains import services as domains
from virttools.errors import ApplyError, UsageError
from virttools.host import templates
from virttools.serve import rendered, services
from virttools.serve.rendered import File, Site

app = typer.Typer(
    help="List the services that domains declare; write virtuald's routes files.",
    rich_markup_mode=None,
    invoke_without_command=True,
    epilog="Example: virt services sync",
)
_KINDS = ", ".join(rendered.KINDS)


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="services")
    main.command(
        short_help="Print declared services as a super-server's configuration.",
        epilog="Example: virt render xinetd > /etc/xinetd.d/virt",
    )(render)


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


def render(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {_KINDS}.")],
    into: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Write units into DIR.")
    ] = None,
) -> None:
    """Print the services of all domains as inetd, xinetd or systemd want to have them."""
    output: Output = ctx.obj
    if kind not in rendered.KINDS:
        raise UsageError(f"cannot render {kind}: it must be one of {_KINDS}")
    found = domains.declared(output.settings.root)
    for problem in services.problems(found):
        output.note(f"warning: {problem}")
    virt = installed(output.called)
    site = Site(output.settings.root, virt, os.path.join(os.path.dirname(virt), "virtuald"))
    files = rendered.render(kind, found, site, templates.text)
    if into is None:
        lines = [f"# {one.name}\n{one.text}" if one.name else one.text for one in files]
        texts = [{"name": one.name, "text": one.text} for one in files]
        output.result("render", {"kind": kind, "files": texts}, [line[:-1] for line in lines])
        return
    _write(into, kind, files)
    names = [one.name for one in files]
    data = {"kind": kind, "written": names}
    output.result("render", data, [] if output.quiet else [f"wrote {name}" for name in names])


def _write(folder: str, kind: str, files: tuple[File, ...]) -> None:
    if kind != "systemd":
        raise UsageError(f"cannot write into {folder}: {kind} is one text, which goes to stdout")
    for one in files:
        try:
            with open(os.path.join(folder, one.name), "w", encoding="utf-8") as file:
                file.write(one.text)
        except OSError as error:
            raise ApplyError(f"cannot write {one.name}: {error.strerror}") from error
