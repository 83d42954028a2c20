"""`virt render`: texts for other programs, from what the domains are and declare."""

import os
import re
import time
from typing import Annotated

import typer

from virttools.cli import complete
from virttools.cli.links import installed
from virttools.cli.log import Logs, logs_folder
from virttools.cli.output import Output
from virttools.domains import renderings
from virttools.domains import services as domains
from virttools.errors import ApplyError, UsageError
from virttools.host import templates
from virttools.manifest import names
from virttools.serve import rendered, services
from virttools.serve.rendered import File, Site

_KINDS = ", ".join((*rendered.KINDS, *renderings.KINDS))
_LAST = 2**32 - 1
"""The highest serial number (RFC 1982)."""


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in _KINDS.split(", ") if kind.startswith(incomplete)]


def register(main: typer.Typer) -> None:
    main.command(
        short_help="Print configuration for other programs.",
        epilog="Examples: virt render xinetd > /etc/xinetd.d/virt\n\n"
        "virt render zone domain1.com > /etc/bind/db.domain1.com",
    )(render)


def render(
    ctx: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=f"One of {_KINDS}.", autocompletion=_kinds),
    ],
    domain: Annotated[
        str | None,
        typer.Argument(
            metavar="[DOMAIN]",
            help="Of zone: the domain, if there are more.",
            autocompletion=complete.domains,
        ),
    ] = None,
    into: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Write units into DIR.")
    ] = None,
    logs: Logs = None,
    serial: Annotated[
        int | None,
        typer.Option("--serial", metavar="N", min=0, max=_LAST, help="Of zone: its serial number."),
    ] = None,
    nameserver: Annotated[
        str | None,
        typer.Option("--nameserver", metavar="NAME", help="Of zone: its server, not ns.DOMAIN."),
    ] = None,
) -> None:
    """Print services for a super-server, logs for a log daemon, or names for hosts(5) and DNS."""
    output: Output = ctx.obj
    if kind != "zone" and (domain, serial, nameserver) != (None, None, None):
        raise UsageError(
            f"cannot render {kind} so: DOMAIN, --serial, --nameserver are for zone only"
        )
    if kind in rendered.KINDS:
        files = _services(output, kind)
    elif kind in renderings.KINDS:
        zone = _zone(domain, serial, nameserver) if kind == "zone" else None
        site = renderings.Site(output.settings.root, logs_folder(output, logs), zone)
        files = (File("", renderings.render(kind, site)),)
    else:
        raise UsageError(f"cannot render {kind}: it must be one of {_KINDS}")
    if into is not None:
        _write(into, kind, files)
        units = [one.name for one in files]
        data = {"kind": kind, "written": units}
        output.result("render", data, [] if output.quiet else [f"wrote {name}" for name in units])
        return
    lines = [f"# {one.name}\n{one.text}" if one.name else one.text for one in files]
    texts = [{"name": one.name, "text": one.text} for one in files]
    output.result("render", {"kind": kind, "files": texts}, [line[:-1] for line in lines])


def _zone(domain: str | None, serial: int | None, nameserver: str | None) -> renderings.Zone:
    chosen = None if domain is None else names.domain(domain)
    server = None if nameserver is None else _host(nameserver)
    return renderings.Zone(chosen, _serial(serial), server)


def _host(text: str) -> str:
    try:
        return names.host(text)
    except names.UnfitError as error:
        raise UsageError(
            f"cannot use {names.quoted(text)} as a nameserver: {error.cause}"
        ) from error


def _serial(asked: int | None) -> int:
    """YYYYMMDD01 in UTC. The environment's moment wins: who sets it wants equal bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None and asked is not None:
        return asked
    moment = time.gmtime() if epoch is None else _moment(epoch)
    return int(time.strftime("%Y%m%d01", moment))


def _moment(epoch: str) -> time.struct_time:
    if re.fullmatch(r"[0-9]{1,10}", epoch) and int(epoch) <= _LAST:
        return time.gmtime(int(epoch))
    raise UsageError(
        f"cannot use SOURCE_DATE_EPOCH={epoch!r}: it must be seconds since 1970, in digits",
        hint="SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)",
    )


def _services(output: Output, kind: str) -> tuple[File, ...]:
    found = domains.declared(output.settings.root)
    for problem in services.problems(found.services):
        output.note(f"warning: {problem}")
    virt = installed(output.called)
    site = Site(output.settings.root, virt, os.path.join(os.path.dirname(virt), "virtuald"))
    files = rendered.render(kind, found.services, site, templates.text, found.daemons)
    if kind != "systemd":
        return files
    return files + rendered.daemon_units(found.daemons, site, templates.text)


def _write(folder: str, kind: str, files: tuple[File, ...]) -> None:
    if kind != "systemd":
        raise UsageError(f"cannot write into {folder}: {kind} is one text, which goes to stdout")
    for one in files:
        try:
            with open(os.path.join(folder, one.name), "w", encoding="utf-8") as file:
                file.write(one.text)
        except OSError as error:
            raise ApplyError(f"cannot write {one.name}: {error.strerror}") from error
