"""`virt doctor`: what is wrong with the machine and its domains, why, and the command that mends it."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.links import installed
from virttools.cli.output import Output
from virttools.doctor.finding import Finding, Severity
from virttools.errors import CheckFailed
from virttools.manifest import names

_COLOURS = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Say what is wrong here, and what mends it.",
        epilog="Example: virt doctor domain1.com",
    )(doctor)


def doctor(
    ctx: typer.Context,
    domains: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOMAIN]...", help="Only these.", autocompletion=complete.domains),
    ] = None,
    inetd: Annotated[
        str, typer.Option(metavar="FILE", help="The inetd.conf to look at.")
    ] = "/etc/inetd.conf",
    bindir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="The folder of the links [default: virt.toml's, or virt's]."
        ),
    ] = None,
) -> None:
    """Look at the machine and every domain; name what is wrong, its cause, and the command that mends it.

    Nothing is changed. The status is 1 where there are errors or warnings.
    """
    from virttools.domains import diagnosis

    output: Output = ctx.obj
    virt = installed(output.called)
    place = diagnosis.Place(
        root=output.settings.root,
        virt=output.virt(),
        program=virt,
        bindir=os.path.abspath(bindir or output.settings.bindir or os.path.dirname(virt)),
        inetd=os.path.abspath(inetd),
    )
    asked = [names.domain(text) for text in domains or ()]
    with output.progress("examining") as advance:
        found = diagnosis.diagnose(place, list(dict.fromkeys(asked)), advance)
    _show(output, found)
    if any(one.severity is not Severity.NOTE for one in found):
        raise typer.Exit(CheckFailed.exit_code)


def _show(output: Output, found: Sequence[Finding]) -> None:
    if output.json:
        output.result("doctor", {"findings": [one.document() for one in found]})
        return
    for one in found:
        if output.is_terminal():
            print(_block(one, color=output.color))
        else:
            fields = (one.severity, one.domain or "-", one.check, one.what, one.cause, one.mend)
            print("\t".join(map(_plain, fields)))
    output.note(_summary(found))


def _block(one: Finding, *, color: bool) -> str:
    head = one.severity.value
    if color:
        head = f"\033[{_COLOURS[one.severity]}m{head}\033[0m"
    whose = f" {one.domain}:" if one.domain else ""
    return (
        f"{head}{whose} {_plain(one.what)} [{one.check}]\n"
        f"  cause: {_plain(one.cause)}\n"
        f"  mend:  {_plain(one.mend)}\n"
    )


def _plain(text: str) -> str:
    """Trees name files as they like: what a terminal would obey is made visible."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _summary(found: Sequence[Finding]) -> str:
    if not found:
        return "nothing is wrong"
    counts = Counter(one.severity for one in found)
    told = [
        f"{counts[kind]} {kind}{'s' if counts[kind] > 1 else ''}"
        for kind in Severity
        if counts[kind]
    ]
    return ", ".join(told)
