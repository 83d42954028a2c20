"""`virt scrub`: find and remove secrets and other domains' names in a tree that is there."""

from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.asking import confirm, is_possible
from virttools.cli.output import Output
from virttools.domains import inspect, scrubbing
from virttools.errors import SecretFound, UsageError
from virttools.manifest import names
from virttools.scrub.operations import OPERATIONS

_SHOWN = 20
"""How much of what would go is named before the question."""


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Remove secrets from a domain.",
        epilog="Example: virt scrub domain1.com --operations default,-logfiles -n",
    )(scrub)


def scrub(
    ctx: typer.Context,
    domain: Annotated[
        str | None, typer.Argument(help="The domain to scrub.", autocompletion=complete.domains)
    ] = None,
    list_operations: Annotated[
        bool, typer.Option("--list-operations", help="Name all operations; * runs by default.")
    ] = False,
    operations: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="As in default,-x,+y [default: the manifest's]."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Name what would go; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove host keys, password hashes, histories, logs and the names of other domains from a tree."""
    output: Output = ctx.obj
    if list_operations:
        _list(output)
        return
    if domain is None:
        raise UsageError("cannot scrub: no domain is named", hint="virt scrub domain1.com")
    name = names.domain(domain)
    inspect.require(output.settings.root, [name], "scrub")
    words = tuple(operations.split(",")) if operations is not None else None
    if not yes and not dry_run:
        _ask(output, name, words)
    output.tell_namespace()
    report = scrubbing.scrub(output.settings.root, name, operations=words, dry_run=dry_run)
    verb = "would scrub" if dry_run else "scrubbed"
    lines = [f"{verb} {finding}" for finding in report.scrubbed]
    lines += [f"still there: {finding}" for finding in report.refused]
    data = {
        "domain": domain,
        "scrubbed": [finding.document() for finding in report.scrubbed],
        "found": [finding.document() for finding in report.refused],
    }
    output.result("scrub", data, lines)
    if report.refused:
        output.note(
            "hint: remove what is still there by hand, or let the manifest's scrub.keep name it"
        )
        raise typer.Exit(SecretFound.exit_code if not dry_run else 1)


def _ask(output: Output, domain: str, words: tuple[str, ...] | None) -> None:
    """Whether all of that is to go, which is shown first. Raises UsageError."""
    if is_possible():
        before = scrubbing.scrub(output.settings.root, domain, operations=words, dry_run=True)
        for finding in before.scrubbed[:_SHOWN]:
            output.note(f"would scrub {finding}")
        if len(before.scrubbed) > _SHOWN:
            more = len(before.scrubbed) - _SHOWN
            output.note(f"and {more} more; `virt scrub {domain} --dry-run` names them all")
    confirm(
        f"scrub {domain}",
        "This is for a tree that others will get: mail, logs, histories and keys go for good,"
        " and passwords are locked.",
    )


def _list(output: Output) -> None:
    rows = [(("*" if one.default else " "), one.name, one.summary) for one in OPERATIONS]
    if output.json:
        data = [
            {"name": name, "default": star == "*", "description": told} for star, name, told in rows
        ]
        output.result("scrub", {"operations": data})
    else:
        output.table(("", "operation", "what it removes"), rows)
