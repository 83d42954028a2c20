"""`virt profile`: the manifests that others include."""

from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.output import Output
from virttools.manifest import profiles

app = typer.Typer(
    help="List and show profiles.",
    epilog="Example: virt profile list",
    rich_markup_mode=None,
    no_args_is_help=True,
)


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="profile")


@app.command("list", epilog="Example: virt profile list")
def list_(ctx: typer.Context) -> None:
    """List the profiles: a site's own in /etc/virttools/profiles win over shipped ones."""
    output: Output = ctx.obj
    rows = [(name, profiles.find(name).file) for name in profiles.names()]
    if output.json:
        data = [{"profile": name, "file": file} for name, file in rows]
        output.result("profile list", {"profiles": data})
    else:
        output.table(("profile", "file"), rows)


@app.command(epilog="Example: virt profile show base")
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A profile.", autocompletion=complete.profiles)],
) -> None:
    """Print a profile as it is written."""
    output: Output = ctx.obj
    layer = profiles.find(name)
    data = {"profile": name, "file": layer.file, "text": layer.text}
    output.result("profile show", data, [layer.text.rstrip("\n")])
