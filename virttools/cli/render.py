"""`virt render`: texts for other programs, from what the domains declare."""

import typer

from virttools.cli.log import Logs, logs_folder
from virttools.cli.output import Output

app = typer.Typer(
    help="Print configuration for other programs.",
    epilog="Example: virt render rsyslog > /etc/rsyslog.d/virt.conf",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example: virt render rsyslog > /etc/rsyslog.d/virt.conf")
def rsyslog(ctx: typer.Context, logs: Logs = None) -> None:
    """For rsyslogd in place of `virt log serve`: an input and a file for every domain."""
    _show(ctx.obj, "rsyslog", logs)


@app.command("syslog-ng", epilog="Example: virt render syslog-ng > /etc/syslog-ng/conf.d/virt.conf")
def syslog_ng(ctx: typer.Context, logs: Logs = None) -> None:
    """For syslog-ng in place of `virt log serve`: a source and a file for every domain."""
    _show(ctx.obj, "syslog-ng", logs)


@app.command(epilog="Example: virt render logrotate > /etc/logrotate.d/virt")
def logrotate(ctx: typer.Context, logs: Logs = None) -> None:
    """For logrotate: the files of `virt log serve`."""
    _show(ctx.obj, "logrotate", logs)


def _show(output: Output, kind: str, logs: str | None) -> None:
    from virttools.domains import renderings

    site = renderings.Site(output.settings.root, logs_folder(output, logs))
    text = renderings.render(kind, site)
    output.result(f"render {kind}", {"text": text}, text.splitlines())
