"""`virt ip`: the domains' addresses on an interface of the host."""

from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.output import Output
from virttools.domains.addresses import Place, Synced
from virttools.manifest import names
from virttools.net.alias import Alias

app = typer.Typer(
    help="Put the domains' addresses on an interface, through netlink.",
    rich_markup_mode=None,
    no_args_is_help=True,
    epilog="Example: virt ip sync --interface eth0",
)

Interface = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The interface [default: virt.toml's, or that of the default route]."
    ),
]
NoProbe = Annotated[
    bool,
    typer.Option("--no-probe", help="Do not ask the network whether another machine has it."),
]
Domain = Annotated[str, typer.Argument(help="The domain.", autocompletion=complete.domains)]
Address = Annotated[str, typer.Argument(help="An IPv4 or IPv6 address.")]


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="ip")


@app.command("list", epilog="Example: virt ip list")
def list_(ctx: typer.Context) -> None:
    """List the domains' addresses, and the interface that has each."""
    from virttools.domains import addresses

    output: Output = ctx.obj
    found = addresses.places(output.settings.root)
    data = [
        {"address": it.address, "domain": it.domain, "interface": it.interface, "ours": it.is_ours}
        for it in found
    ]
    if output.json:
        output.result("ip list", {"addresses": data})
    elif not found:
        output.note("no domain has an address; give it one: virt ip add DOMAIN ADDRESS")
    else:
        rows = [(it.address, it.domain or "-", it.interface or "-", _state(it)) for it in found]
        output.table(("address", "domain", "interface", "state"), rows)


def _state(place: Place) -> str:
    if place.interface is None:
        return "absent"
    if place.domain is None:
        return "left over"
    return "added" if place.is_ours else "the host's own"


@app.command(epilog="Example: virt ip sync --interface eth0")
def sync(
    ctx: typer.Context,
    interface: Interface = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, change nothing.")
    ] = False,
    no_probe: NoProbe = False,
) -> None:
    """Add the addresses that are missing, and take away those that virt added and no domain has."""
    from virttools.domains import addresses

    output: Output = ctx.obj
    chosen = interface or output.settings.interface
    root = output.settings.root
    done = addresses.sync(root, chosen, dry_run=dry_run, probe=not no_probe)
    _tell(output, "ip sync", done)


@app.command(epilog="Example: virt ip add domain1.com 192.0.2.1")
def add(
    ctx: typer.Context,
    domain: Domain,
    address: Address,
    interface: Interface = None,
    no_probe: NoProbe = False,
) -> None:
    """Give an address to a domain: on the interface and in its record."""
    from virttools.domains import addresses

    output: Output = ctx.obj
    name, one = names.domain(domain), names.address(address)
    chosen = interface or output.settings.interface
    done = addresses.give(output.settings.root, name, one, chosen, probe=not no_probe)
    _tell(output, "ip add", done)
    _remind(output, name)


@app.command("del", epilog="Example: virt ip del domain1.com 192.0.2.1")
def del_(ctx: typer.Context, domain: Domain, address: Address) -> None:
    """Take an address from a domain: out of its record, and off the interface if virt put it there."""
    from virttools.domains import addresses

    output: Output = ctx.obj
    name, one = names.domain(domain), names.address(address)
    _tell(output, "ip del", addresses.withdraw(output.settings.root, name, one))
    _remind(output, name)


def _tell(output: Output, command: str, done: Synced) -> None:
    for alias in done.changes.kept:
        output.note(f"{alias} was there before: it stays the host's own, virt never removes it")
    for failure in done.failures[1:]:
        output.note(f"virt: {failure.message}")
    if done.failures:
        raise done.failures[0]
    data = {
        "added": [_document(alias) for alias in done.changes.add],
        "removed": [_document(alias) for alias in done.changes.remove],
        "kept": [_document(alias) for alias in done.changes.kept],
    }
    output.result(command, data, str(done.changes).splitlines() if not output.quiet else [])


def _document(alias: Alias) -> dict[str, object]:
    return {"address": alias.address, "prefix": alias.prefix, "interface": alias.interface}


def _remind(output: Output, domain: str) -> None:
    output.note(
        f"the record of {domain} is changed; routes follow with `virt services sync`, "
        "what the tree's /etc says of addresses is left to its owner"
    )
