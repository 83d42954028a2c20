"""`virt create`: from manifests to published domains; without a name it asks, as virtfs did."""

import os
from typing import Annotated, Any

import typer

from virttools.cli import complete
from virttools.cli.asking import is_possible
from virttools.cli.output import Output, size
from virttools.domains import create as creating
from virttools.domains.create import Created, Preview
from virttools.domains.wish import Options, Wish
from virttools.errors import SecretFound, UsageError
from virttools.manifest import names
from virttools.manifest.load import load
from virttools.tree.actions import document

_LONGEST_ID = 20  # digits; Python refuses to read thousands of them


_Domains = Annotated[
    list[str] | None, typer.Argument(metavar="DOMAIN...", help="The domains to create.")
]
_Manifest = Annotated[
    str | None, typer.Option("--manifest", "-m", metavar="FILE", help="The manifest (TOML).")
]
_Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile", "-p", help="A profile; repeatable.", autocompletion=complete.profiles
    ),
]
_Addresses = Annotated[
    list[str] | None, typer.Option("--ip", metavar="ADDRESS", help="An address; repeatable.")
]
_Link = Annotated[str | None, typer.Option(help="How files get in: auto, reflink, hard or copy.")]
_UidBase = Annotated[
    str | None,
    typer.Option(metavar="auto|N", help="Ids of its own: added to all of its users' and groups'."),
]
_SourceRoot = Annotated[
    str, typer.Option(metavar="DIR", help="Take programs from the system in DIR, not this one.")
]
_Resolver = Annotated[
    str, typer.Option(help="Who finds libraries: own, or ldd (runs ld.so on each file).")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print the plan; change nothing.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Build domains.",
        epilog="Example: virt create domain1.com --ip 192.0.2.1 -p login",
    )(create)


def create(
    ctx: typer.Context,
    domains: _Domains = None,
    manifest: _Manifest = None,
    profile: _Profiles = None,
    ip: _Addresses = None,
    link: _Link = None,
    uid_base: _UidBase = None,
    source_root: _SourceRoot = "/",
    resolver: _Resolver = "own",
    dry_run: _DryRun = False,
    yes: _Yes = False,
) -> None:
    """Build the tree of each DOMAIN and publish it whole, or not at all."""
    output: Output = ctx.obj
    root = output.settings.root
    if not domains:
        domains, root = _ask(root, asking=not yes)
    if resolver not in ("own", "ldd"):
        raise UsageError(f"cannot use resolver {resolver!r}: there are own and ldd")
    _refuse_shared_address(domains, ip or [])
    wishes = [
        Wish(
            domain,
            load(
                domain,
                manifest_file=manifest,
                profiles=profile or (),
                addresses=ip or (),
                defaults=output.settings.profiles,
                link=link,
                uid_base=_number(uid_base),
            ),
        )
        for domain in dict.fromkeys(names.domain(text) for text in domains)
    ]
    options = Options(source_root=source_root, resolver=resolver)
    if dry_run:
        _preview(output, creating.preview(root, wishes, options))
        return
    output.tell_namespace()
    title = domains[0] if len(domains) == 1 else f"{len(domains)} domains"
    with output.progress(f"creating {title}") as advance:
        created = creating.create(root, wishes, options, advance=advance)
    _show(output, created)


def _number(text: str | None) -> int | str | None:
    """As the manifest would have it, which then says what is wrong with it."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_ID):
        return text
    return int(text)


def _refuse_shared_address(domains: list[str], ip: list[str]) -> None:
    if ip and len(domains) > 1:
        raise UsageError(
            f"cannot give {ip[0]} to {len(domains)} domains: an address belongs to one",
            hint="create them one by one, or write `addresses` into their manifests",
        )


def _ask(root: str, *, asking: bool) -> tuple[list[str], str]:
    """The two questions of the HOWTO's virtfs, on a terminal."""
    if not asking or not is_possible():
        raise UsageError("cannot create a domain: none is named", hint="virt create domain1.com")
    import questionary

    domain = questionary.text("Domain name:").unsafe_ask()
    if not domain:
        raise UsageError("cannot create a domain: nothing was entered")
    folder = questionary.text("Folder that holds the trees:", default=root).unsafe_ask()
    return [domain], os.path.abspath(folder or root)


def _preview(output: Output, previews: tuple[Preview, ...]) -> None:
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    for one in previews:
        actions = sorted(one.plan.actions, key=lambda action: action.path)
        rows.append(
            {
                "domain": one.plan.domain,
                "actions": [document(action) for action in actions],
                "scrub": [finding.document() for finding in one.scrubbed],
                "refused": [finding.document() for finding in one.refused],
                "warnings": list(one.plan.warnings),
                "absent": list(one.plan.absent),
            }
        )
        lines += [f"# {one.plan.domain}", *map(str, actions)]
        lines += [f"scrub    {finding}" for finding in one.scrubbed]
        lines += [f"refuse   {finding}" for finding in one.refused]
        lines += [f"warning  {warning}" for warning in one.plan.warnings]
        lines += [f"absent   {said}" for said in one.plan.absent]
    output.result("create", {"plans": rows}, lines)
    refused = [finding for one in previews for finding in one.refused]
    if refused and not output.json:
        output.note("virt: what is marked `refuse` would stop the build")
    if refused:
        raise typer.Exit(SecretFound.exit_code)


def _show(output: Output, created: tuple[Created, ...]) -> None:
    rows = [
        {
            "domain": one.domain,
            "path": one.path,
            "entries": one.entries,
            "files": one.files,
            "bytes": one.size,
            "shared": one.shared,
            "scrubbed": [finding.document() for finding in one.scrubbed],
            "warnings": list(one.warnings),
            "absent": list(one.absent),
        }
        for one in created
    ]
    lines = [
        f"created {one.domain} in {one.path}: {one.files} files, {size(one.size)}, "
        f"{one.shared} shared" + (f", {len(one.scrubbed)} scrubbed" if one.scrubbed else "")
        for one in created
    ]
    for warning in dict.fromkeys(warning for one in created for warning in one.warnings):
        output.note(f"warning: {warning}")
    _note_absent(output, list(dict.fromkeys(said for one in created for said in one.absent)))
    for one in created:
        for finding in one.scrubbed:
            output.note(f"scrubbed {one.domain}: {finding}")
    output.result("create", {"domains": rows}, [] if output.quiet else lines)


def _note_absent(output: Output, absent: list[str]) -> None:
    if output.verbose:
        for said in absent:
            output.note(f"optional: {said}")
    elif absent:
        things = "1 optional thing is" if len(absent) == 1 else f"{len(absent)} optional things are"
        output.note(f"{things} not on this host (-v names them)")
