"""`virt render`: texts for other programs, from what the domains are and declare."""

import os
from typing import Annotated

import typer

from virttools.cli.links import installed
from virttools.cli.log import Logs, logs_folder
from virttools.cli.output import Output
from virttools.domains import renderings
from virttools.domains import services as domains
from virttools.errors import ApplyError, UsageError
from virttools.host import templates
from virttools.serve import rendered, services
from virttools.serve.rendered import File, Site

_KINDS = ", ".join((*rendered.KINDS, *renderings.KINDS))


def register(main: typer.Typer) -> None:
    main.command(
        short_help="Print configuration for other programs.",
        epilog="Example: virt render xinetd > /etc/xinetd.d/virt",
    )(render)


def render(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {_KINDS}.")],
    into: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Write units into DIR.")
    ] = None,
    logs: Logs = None,
) -> None:
    """Print the services of all domains for a super-server, or their logs for a log daemon."""
    output: Output = ctx.obj
    if kind in rendered.KINDS:
        files = _services(output, kind)
    elif kind in renderings.KINDS:
        site = renderings.Site(output.settings.root, logs_folder(output, logs))
        files = (File("", renderings.render(kind, site)),)
    else:
        raise UsageError(f"cannot render {kind}: it must be one of {_KINDS}")
    if into is not None:
        _write(into, kind, files)
        names = [one.name for one in files]
        data = {"kind": kind, "written": names}
        output.result("render", data, [] if output.quiet else [f"wrote {name}" for name in names])
        return
    lines = [f"# {one.name}\n{one.text}" if one.name else one.text for one in files]
    texts = [{"name": one.name, "text": one.text} for one in files]
    output.result("render", {"kind": kind, "files": texts}, [line[:-1] for line in lines])


def _services(output: Output, kind: str) -> tuple[File, ...]:
    found = domains.declared(output.settings.root)
    for problem in services.problems(found):
        output.note(f"warning: {problem}")
    virt = installed(output.called)
    site = Site(output.settings.root, virt, os.path.join(os.path.dirname(virt), "virtuald"))
    return rendered.render(kind, found, site, templates.text)


def _write(folder: str, kind: str, files: tuple[File, ...]) -> None:
    if kind != "systemd":
        raise UsageError(f"cannot write into {folder}: {kind} is one text, which goes to stdout")
    for one in files:
        try:
            with open(os.path.join(folder, one.name), "w", encoding="utf-8") as file:
                file.write(one.text)
        except OSError as error:
            raise ApplyError(f"cannot write {one.name}: {error.strerror}") from error
