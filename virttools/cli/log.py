"""`virt log`: dev/log in the trees, whole and listened to; what was said there, read back."""

import typer

from virttools.cli.output import Output

app = typer.Typer(
    help="Log from inside: dev/log of every domain.",
    epilog="Example: virt log status",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# Each command's body calls one function of virttools.devlog or virttools.domains, imported inside it:
# `virt log serve` must be able to start without rich, jinja2 and the manifest's parser.


@app.command(epilog="Example: virt log status")
def status(ctx: typer.Context) -> None:
    """Say for every domain whether its dev/log is fresh and listened to; 1 where one is not."""
    output: Output = ctx.obj
    output.result("log status", {"domains": []})
