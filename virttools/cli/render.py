"""`virt render`: texts for other programs, from what the domains are."""

from typing import Annotated

import typer

from virttools.cli.log import Logs, logs_folder
from virttools.cli.output import Output
from virttools.domains import renderings
from virttools.errors import UsageError

_KINDS = ", ".join(renderings.KINDS)


def register(main: typer.Typer) -> None:
    main.command(
        short_help="Print configuration for other programs.",
        epilog="Example: virt render rsyslog > /etc/rsyslog.d/virt.conf",
    )(render)


def render(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {_KINDS}.")],
    logs: Logs = None,
) -> None:
    """Print configuration for log daemons in place of `virt log serve`, and for logrotate."""
    output: Output = ctx.obj
    if kind not in renderings.KINDS:
        raise UsageError(f"cannot render {kind}: it must be one of {_KINDS}")
    site = renderings.Site(output.settings.root, logs_folder(output, logs))
    text = renderings.render(kind, site)
    data = {"kind": kind, "files": [{"name": "", "text": text}]}
    output.result("render", data, text.splitlines())
