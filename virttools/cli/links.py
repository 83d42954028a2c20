"""`virt link`, `unlink` and `links`: the symlinks virtNAME that run NAME in a domain."""

import os
import sys
from typing import Annotated

import typer

from virttools.cli.output import Output
from virttools.enter import links
from virttools.enter.links import Bin

_Bindir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="The folder of the links [default: virt.toml's, or virt's]."),
]


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Make symlinks virtNAME that run NAME in a domain.",
        epilog="Example: virt link passwd vi newuser=useradd",
    )(link)
    app.command(short_help="Remove such symlinks.", epilog="Example: virt unlink vi")(unlink)
    app.command("links", short_help="List such symlinks.", epilog="Example: virt links")(links_)


def link(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME[=PROGRAM]...", help="What to link.")],
    bindir: _Bindir = None,
) -> None:
    """Make symlinks to virt: virtNAME runs NAME (or PROGRAM) in a domain that you pick."""
    output: Output = ctx.obj
    wanted = [links.read(word) for word in names]
    with _open(output, bindir) as folder:
        made = [f"virt{one.name}" for one in folder.make(wanted)]
    data = {"bindir": folder.path, "linked": made}
    lines = [] if output.quiet else [f"linked {folder.path}/{name}" for name in made]
    output.result("link", data, lines)
    if folder.path not in os.environ.get("PATH", "").split(":"):
        output.note(f"hint: {folder.path} is not in your PATH")


def unlink(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="What to unlink.")],
    bindir: _Bindir = None,
) -> None:
    """Remove symlinks virtNAME that lead to this virt, and nothing else."""
    output: Output = ctx.obj
    wanted = [links.read(word).name for word in names]
    with _open(output, bindir) as folder:
        folder.remove(wanted)
    lines = [] if output.quiet else [f"unlinked {folder.path}/virt{name}" for name in wanted]
    data = {"bindir": folder.path, "unlinked": [f"virt{name}" for name in wanted]}
    output.result("unlink", data, lines)


def links_(ctx: typer.Context, bindir: _Bindir = None) -> None:
    """List what is called virtNAME: the program it runs, and `broken` or `foreign` if it is not ours."""
    output: Output = ctx.obj
    with _open(output, bindir) as folder:
        found = folder.links()
    if output.json:
        data = [
            {"name": f"virt{one.name}", "program": one.program, "state": one.state, "target": one.target}
            for one in found
        ]  # fmt: skip
        output.result("links", {"bindir": folder.path, "links": data})
    elif not found:
        output.note(f"no links in {folder.path}; make one: virt link passwd")
    else:
        rows = [
            (f"virt{one.name}", one.program or "-", one.state, one.target or "-") for one in found
        ]
        output.table(("name", "runs", "state", "target"), rows)


def _open(output: Output, bindir: str | None) -> Bin:
    virt = installed(output.called)
    folder = bindir or output.settings.bindir or os.path.dirname(virt)
    return Bin(os.path.abspath(folder), virt)


def installed(called: str) -> str:
    """The `virt` that this call came through, or that belongs to the package."""
    beside = os.path.join(os.path.dirname(os.path.abspath(called)), "virt")
    if "/" in called and os.path.exists(beside):
        return beside
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    own = os.path.join(package, "bin", "virt")
    return own if os.path.exists(own) else os.path.join(sys.prefix, "bin", "virt")
