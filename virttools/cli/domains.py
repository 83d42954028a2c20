"""`virt list`, `show`, `why` and `remove`."""

from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.asking import confirm
from virttools.cli.output import Output, size
from virttools.domains import inspect
from virttools.domains.inspect import Summary
from virttools.errors import UnknownDomain
from virttools.manifest import names
from virttools.tree import ranges
from virttools.tree.record import Entry
from virttools.tree.root import open_root


def register(app: typer.Typer) -> None:
    app.command("list", short_help="List the domains.", epilog="Example: virt list | cut -f1")(
        list_
    )
    app.command(short_help="Show what is in a domain.", epilog="Example: virt show domain1.com")(
        show
    )
    app.command(
        short_help="Say where a path came from.", epilog="Example: virt why domain1.com /bin/bash"
    )(why)
    app.command(short_help="Remove domains.", epilog="Example: virt remove --yes domain1.com")(
        remove
    )


def list_(ctx: typer.Context) -> None:
    """List the domains: name, addresses, profiles."""
    output: Output = ctx.obj
    try:
        with open_root(output.settings.root) as root:
            heads = root.heads()
    except UnknownDomain:
        heads = ()
    data = [
        {"domain": head.domain, "addresses": list(head.addresses), "profiles": list(head.profiles)}
        for head in heads
    ]
    if output.json:
        output.result("list", {"root": output.settings.root, "domains": data})
    elif not heads:
        output.note(f"no domains below {output.settings.root}; make one: virt create domain1.com")
    else:
        rows = [
            (head.domain, ", ".join(head.addresses) or "-", ", ".join(head.profiles) or "-")
            for head in heads
        ]
        output.table(("domain", "addresses", "profiles"), rows)


def show(
    ctx: typer.Context,
    domain: Annotated[
        str, typer.Argument(help="The domain to show.", autocompletion=complete.domains)
    ],
) -> None:
    """Show what is in a domain and what it was made from."""
    output: Output = ctx.obj
    with open_root(output.settings.root) as root:
        found = inspect.summary(root, names.domain(domain))
    if output.json:
        output.result("show", _summary_document(found))
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds)
    rows = [
        ("domain", found.domain),
        ("path", found.path),
        ("addresses", ", ".join(found.addresses) or "-"),
        ("profiles", ", ".join(found.profiles) or "-"),
        ("ids", _ids(found.uid_base)),
        ("manifest", ", ".join(found.layers)),
        ("entries", kinds),
        ("size", f"{size(found.size)}, of which {size(found.shared)} shared through the store"),
        ("packages", f"from {len(found.packages)} packages of the host"),
    ]
    if output.verbose:
        rows += [
            ("", f"{package} {version} ({count})") for package, version, count in found.packages
        ]
    output.table(("", ""), rows)


def _ids(uid_base: int) -> str:
    if not uid_base:
        return "not moved: shared with the machine and other domains"
    own = ranges.of(uid_base)
    return f"{own.start} to {own.stop - 1}"


def _summary_document(found: Summary) -> dict[str, object]:
    return {
        "domain": found.domain,
        "path": found.path,
        "addresses": list(found.addresses),
        "profiles": list(found.profiles),
        "uid_base": found.uid_base,
        "manifest": list(found.layers),
        "entries": dict(found.kinds),
        "bytes": found.size,
        "shared_bytes": found.shared,
        "packages": [
            {"package": package, "version": version, "entries": count}
            for package, version, count in found.packages
        ],
    }


def why(
    ctx: typer.Context,
    domain: Annotated[str, typer.Argument(help="The domain.", autocompletion=complete.domains)],
    path: Annotated[str, typer.Argument(help="A path as seen from inside.")],
) -> None:
    """Say which manifest line and which rule brought a path into a domain."""
    output: Output = ctx.obj
    with open_root(output.settings.root) as root:
        steps = inspect.chain(root.read_record(names.domain(domain)), path)
    lines = [_owner(steps[0])]
    lines += [f"  {step.rule}" + (f" of {step.by}" if step.by else "") for step in steps]
    lines.append(f"  {steps[-1].origin}")
    output.result("why", {"domain": domain, "chain": [step.document() for step in steps]}, lines)


def _owner(entry: Entry) -> str:
    where = f" -> {entry.target}" if entry.target is not None else ""
    package = f" ({entry.package} {entry.version})" if entry.package else ""
    return f"{entry.path}{where}{package}"


def remove(
    ctx: typer.Context,
    domains: Annotated[
        list[str],
        typer.Argument(
            metavar="DOMAIN...", help="What to remove.", autocompletion=complete.domains
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Do not delete the tree: move it to .virt/kept in the root."),
    ] = False,
) -> None:
    """Remove domains; refuses while something is mounted below or runs inside."""
    from virttools.domains import remove as removing

    output: Output = ctx.obj
    wanted = list(dict.fromkeys(names.domain(text) for text in domains))
    inspect.require(output.settings.root, wanted, "remove")
    root = output.settings.root
    if not yes:
        goes = f"All mail, homes and data of it below {root} go."
        confirm(
            f"remove {', '.join(wanted)}",
            "It is served no more; its mail, homes and data are kept." if keep else goes,
        )
    output.tell_namespace()
    kept = removing.remove(root, wanted, keep=keep)
    lines = [] if output.quiet else [f"removed {name}" for name in wanted]
    if keep and not output.quiet:
        pairs = zip(wanted, kept, strict=True)
        lines = [f"removed {name}; its tree is {place} now" for name, place in pairs]
    output.result("remove", {"removed": wanted, "kept": list(kept)}, lines)
