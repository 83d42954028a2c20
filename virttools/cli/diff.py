"""`virt diff`: what two domains or images have that differs."""

from typing import Annotated, Any

import typer

from virttools.cli import complete
from virttools.cli.output import Output
from virttools.domains import comparing
from virttools.errors import CheckFailed
from virttools.image.differences import Change, Difference
from virttools.image.items import Item
from virttools.scrub.findings import printable

_SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "~"}


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Compare two domains or images.",
        epilog="Example: virt diff domain1.com domain1.oci",
    )(diff)


def diff(
    ctx: typer.Context,
    before: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A domain, or an image: PATH, or PATH:TAG.",
            autocompletion=complete.domains,
        ),
    ],
    after: Annotated[
        str,
        typer.Argument(
            metavar="B", help="What to compare it with.", autocompletion=complete.domains
        ),
    ],
    times: Annotated[
        bool, typer.Option("--times", help="Modification times count as well.")
    ] = False,
) -> None:
    """Say what B has that A has not, and the other way: domains, folders, tar archives, OCI and docker images.

    The status is 1 where they differ.
    """
    output: Output = ctx.obj
    output.tell_namespace()
    found = comparing.compare(output.settings.root, before, after, times=times)
    if output.json:
        rows = [_document(one) for one in found]
        output.result("diff", {"a": before, "b": after, "differences": rows})
    else:
        output.table(
            ("", "path", "what"),
            [
                (_SIGNS[one.change], f"/{printable(one.path)}", printable(one.told()))
                for one in found
            ],
        )
        output.note(_summary(found))
    if found:
        raise typer.Exit(CheckFailed.exit_code)


def _summary(found: tuple[Difference, ...]) -> str:
    if not found:
        return "no difference"
    counts = [(sum(one.change is change for one in found), change) for change in Change]
    return ", ".join(f"{count} {change}" for count, change in counts if count)


def _document(one: Difference) -> dict[str, Any]:
    return {
        "path": f"/{one.path}",
        "change": str(one.change),
        "parts": list(one.parts),
        "a": _item(one.before),
        "b": _item(one.after),
    }


def _item(item: Item | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {
        "type": item.type,
        "mode": f"{item.mode:04o}",
        "uid": item.uid,
        "gid": item.gid,
        "bytes": item.size,
        "sha256": item.sha256,
        "target": item.target,
        "link": f"/{item.link}" if item.link is not None else None,
    }
