"""Texts for other programs, by template: each kind is one template and one function that fills it."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from virttools.devlog import places
from virttools.errors import ConfigError, UnknownDomain, UsageError
from virttools.host import templates
from virttools.manifest.load import reload
from virttools.manifest.model import DevLog
from virttools.net import naming
from virttools.net.naming import Named
from virttools.tree.record import Head
from virttools.tree.rendering import compiled
from virttools.tree.root import open_root

_SUN_PATH = 107  # unix(7): what bind(2) can be told
_UNQUOTABLE = re.compile(r'["\\$`%{}\x00-\x1f\x7f]')


@dataclass(frozen=True, slots=True)
class Zone:
    """Which domain's zone, None: of the only one; nameserver None: the domain's own."""

    domain: str | None
    serial: int
    nameserver: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where things are: the root of the trees, and the folder of the log files."""

    root: str
    logs: str
    zone: Zone | None = None


Context = Mapping[str, object]


def render(kind: str, site: Site) -> str:
    """The text of that kind. Raises ManifestError at a line of the template, ConfigError, HostLacks."""
    context = {**KINDS[kind](site), "root": site.root, "logs": site.logs}
    for path in (site.root, site.logs):
        if _UNQUOTABLE.search(path):
            raise ConfigError(
                f"cannot write {path!r} into a configuration: it holds a quote, blank or sign",
                hint="name a folder with a plain path",
            )
    name = f"render/{kind}.j2"
    return compiled(name, templates.text(name), tuple(context))(context).decode()


def _daemon(site: Site) -> Context:
    """For a log daemon that binds the sockets itself, in place of `virt log serve`."""
    heads = _heads(site.root)
    own = [head.domain for head in heads if head.devlog is DevLog.OWN]
    sockets = [{"name": name, "socket": f"{site.root}/{places.socket_file(name)}"} for name in own]
    for one in sockets:
        if len(one["socket"].encode()) > _SUN_PATH:
            raise ConfigError(
                f"cannot have a daemon bind {one['socket']}: a socket's path has at most {_SUN_PATH} bytes",
                hint="`virt log serve` has no such limit",
            )
    is_shared = any(head.devlog is DevLog.SHARED for head in heads)
    return {"domains": sockets, "shared": f"{site.root}/{places.SHARED}" if is_shared else None}


def _logrotate(site: Site) -> Context:
    return {
        "pid_file": f"{site.root}/{places.FOLDER}/{places.LOCK}",
        "owner": _owner(site.logs),
    }


def _owner(folder: str) -> str | None:
    """USER GROUP of a folder that is not root's: logrotate must not act as root where another may write."""
    import grp
    import pwd

    try:
        found = os.stat(folder)
        if found.st_uid == 0:
            return None
        return f"{pwd.getpwuid(found.st_uid).pw_name} {grp.getgrgid(found.st_gid).gr_name}"
    except (OSError, KeyError):
        return None


def _hosts(site: Site) -> Context:
    return {"hosts": naming.hosts(_named(site.root))}


def _zone(site: Site) -> Context:
    wanted = site.zone
    if wanted is None:
        raise UsageError("cannot render zone: no serial is given")
    found = _named(site.root)
    one = _chosen(found, wanted.domain)
    nameserver = wanted.nameserver or f"ns.{one.domain}"
    rows = naming.rows(one, found, nameserver)
    server = naming.relative(nameserver, one.domain)
    if server is not None and server not in {row.name for row in rows}:
        raise ConfigError(
            f"cannot write a zone of {one.domain}: its nameserver {nameserver} has no address",
            hint=f"`virt ip add {one.domain} ADDRESS`, or --nameserver names one elsewhere",
        )
    return {
        "domain": one.domain,
        "nameserver": nameserver,
        "serial": wanted.serial,
        "mail": "mail" in one.services,
        "rows": rows,
    }


def _chosen(found: Sequence[Named], domain: str | None) -> Named:
    listed = [one for one in found if domain in (None, one.domain)]
    if len(listed) == 1:
        return listed[0]
    if not listed:
        raise UnknownDomain(
            f"cannot render a zone of {domain}: there is no such domain"
            if domain
            else "cannot render a zone: there is no domain"
        )
    names = ", ".join(one.domain for one in listed)
    raise UsageError(
        f"cannot render a zone: a zone is of one domain, and there are {names}",
        hint=f"virt render zone {listed[0].domain}",
    )


def _named(root_path: str) -> tuple[Named, ...]:
    try:
        with open_root(root_path) as root:
            return tuple(
                naming.named(name, reload(root.read_layers(name))) for name in root.domains()
            )
    except UnknownDomain:
        return ()


def _heads(root_path: str) -> tuple[Head, ...]:
    try:
        with open_root(root_path) as root:
            return root.heads()
    except UnknownDomain:
        return ()


KINDS: Mapping[str, Callable[[Site], Context]] = {
    "rsyslog": _daemon,
    "syslog-ng": _daemon,
    "logrotate": _logrotate,
    "hosts": _hosts,
    "zone": _zone,
}
