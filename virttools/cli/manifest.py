"""`virt manifest`: check one, show a domain's with where each line came from, print the JSON Schema."""

import json
from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.output import Output
from virttools.domains import declared
from virttools.manifest import names, schema, text

app = typer.Typer(
    help="Check, show and describe manifests.",
    epilog="Example: virt manifest show domain1.com",
    rich_markup_mode=None,
    no_args_is_help=True,
)


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="manifest")


@app.command(epilog="Example: virt manifest check domain1.toml")
def check(
    ctx: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Manifests (TOML).")],
) -> None:
    """Report everything wrong in each FILE, and in the profiles that it names, at once."""
    output: Output = ctx.obj
    for file in files:
        declared.check(file)
    output.result(
        "manifest check",
        {"files": files},
        [] if output.quiet else [f"{file}: good" for file in files],
    )


@app.command(epilog="Example: virt manifest show domain1.com")
def show(
    ctx: typer.Context,
    domain: Annotated[
        str,
        typer.Argument(
            help="A domain: as built, else as it would be built.", autocompletion=complete.domains
        ),
    ],
) -> None:
    """Print the merged manifest, and for each value the line it came from."""
    output: Output = ctx.obj
    defaults = output.settings.profiles
    found = declared.look(output.settings.root, names.domain(domain), defaults=defaults)
    lines = [
        f"{line.text:<72} # {line.origin}" if line.origin else line.text
        for line in text.lines(found.manifest)
    ]
    data = {
        "domain": found.domain,
        "as_built": found.as_built,
        "manifest": text.document(found.manifest),
    }
    output.result("manifest show", data, lines)


@app.command("schema", epilog="Example: virt manifest schema > virt-manifest.schema.json")
def schema_(ctx: typer.Context) -> None:
    """Print the JSON Schema of manifests, for editors."""
    output: Output = ctx.obj
    found = schema.schema()
    output.result("manifest schema", {"schema": found}, [json.dumps(found, indent=2)])
