"""Values: declared services as text for a super-server, by the templates in templates/render/."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from virttools.errors import ConfigError
from virttools.manifest.model import Daemon, Isolation, TimeSpan
from virttools.serve import services
from virttools.serve.services import Declared, Entry, Resident
from virttools.tree.rendering import compiled

KINDS = ("inetd", "xinetd", "systemd")
_DAY = 24 * 60
_WORDS = (
    "command", "root", "virtuald", "entries", "periodic", "service", "domains", "addresses",
    "daemon", "domain",
)  # fmt: skip
_LIMITS = {
    "as": "AS", "core": "CORE", "cpu": "CPU", "data": "DATA", "files": "NOFILE", "fsize": "FSIZE",
    "nproc": "NPROC", "rss": "RSS", "stack": "STACK",
}  # fmt: skip
_UNLIMITED = 1_000_000
"""Starts a minute: inetd closes a service that has had its number, 256 if nothing is said."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a rendered text names of this machine: the root of the trees, and our programs."""

    root: str
    virt: str
    virtuald: str


@dataclass(frozen=True, slots=True)
class File:
    """A text; name: of a unit, or "" where there is only one."""

    name: str
    text: str


def render(
    kind: str,
    found: Sequence[Declared],
    site: Site,
    template: Callable[[str], str],
    daemons: Sequence[Resident] = (),
) -> tuple[File, ...]:
    """The configuration of that kind of super-server; template: the text of a template by its name.

    daemons: what others run, on ports that are theirs on their addresses.
    Raises ConfigError where it cannot say what is declared and must not be left out, ManifestError.
    """
    entries = services.entries(found, site.root, daemons)
    problems = services.refused(kind, entries)
    if problems:
        raise ConfigError(
            f"cannot render {kind}: it cannot say all that is declared",
            problems=problems,
            hint="`virt serve` can; without it more would be let in than is declared",
        )
    context = {"command": f"virt render {kind}", "root": site.root, "virtuald": site.virtuald}
    if kind == "systemd":
        return _units(entries, services.periodic(found), site, _Pen(template, context))
    context_of = _of_inetd if kind == "inetd" else _of_xinetd
    listed = [context_of(entry) for entry in entries]
    pen = _Pen(template, context)
    return (File("", pen.write(kind, entries=listed, periodic=services.periodic(found))),)


class _Pen:
    def __init__(self, template: Callable[[str], str], context: Mapping[str, object]) -> None:
        self._template = template
        self._context = context

    def write(self, name: str, **context: object) -> str:
        path = f"render/{name}.j2"
        content = compiled(path, self._template(path), _WORDS)({**self._context, **context})
        return content.decode()


def _common(kind: str, entry: Entry) -> dict[str, object]:
    return {
        "service": entry.service,
        "id": entry.id,
        "domains": entry.domains,
        "address": entry.address,
        "addresses": entry.addresses,
        "words": services.words(entry),
        "left_out": services.left_out(kind, entry.service),
    }


def _of_inetd(entry: Entry) -> dict[str, object]:
    service, address = entry.service, entry.address
    is_six = address is not None and ":" in address
    host = "" if address is None else f"[{address}]:" if is_six else f"{address}:"
    return _common("inetd", entry) | {
        "place": f"{host}{service.port}",
        "family": f"{service.protocol}6" if is_six else service.protocol,
        "per_minute": _UNLIMITED if service.cps is None else service.cps.connections * 60,
    }


def _of_xinetd(entry: Entry) -> dict[str, object]:
    limits = [one for one in entry.service.rlimits if one.resource in services.XINETD_LIMITS]
    times = [part for span in entry.service.access_times for part in _within_a_day(span)]
    return _common("xinetd", entry) | {"rlimits": limits, "times": times}


def _within_a_day(span: TimeSpan) -> list[TimeSpan]:
    """No span crosses midnight in xinetd.conf(5), and there is no 24:00 in it."""
    last = _DAY - 1
    if span.end < span.start:
        return [TimeSpan(span.start, last), *([TimeSpan(0, span.end)] if span.end else [])]
    return [TimeSpan(span.start, min(span.end, last))]


def _units(
    entries: Sequence[Entry], periodic: Sequence[Declared], site: Site, pen: _Pen
) -> tuple[File, ...]:
    made = []
    for entry in entries:
        name = _unit(entry.id)
        context = _common("systemd", entry) | {"limits": _LIMITS}
        argv = [_quoted(word) for word in (site.virtuald, *services.words(entry))]
        is_each = "" if entry.service.is_waiting else "@"
        made.append(File(f"{name}.socket", pen.write("systemd.socket", **context)))
        made.append(
            File(f"{name}{is_each}.service", pen.write("systemd.service", **context, argv=argv))
        )
    for one in periodic:
        made += _timer(one, site, pen)
    return tuple(made)


def _timer(one: Declared, site: Site, pen: _Pen) -> list[File]:
    service = one.service
    user = () if service.user == "root" else ("--user", service.user)
    words = ("exec", "--domain", one.domain, *user, "--", service.program, *service.args)
    argv = [_quoted(word) for word in (site.virt, "--root", site.root, *words)]
    name = _unit(f"{service.name}-{one.domain}")
    context = {"service": service, "domains": (one.domain,), "argv": argv, "limits": _LIMITS}
    return [
        File(f"{name}.timer", pen.write("systemd.timer", **context)),
        File(f"{name}.service", pen.write("systemd.service", **context)),
    ]


def daemon_units(
    found: Iterable[Resident], site: Site, template: Callable[[str], str]
) -> tuple[File, ...]:
    """A unit of systemd for each daemon. Raises ManifestError."""
    pen = _Pen(template, {"command": "virt render systemd", "root": site.root})
    return tuple(_daemon_unit(one, site, pen) for one in found)


def _daemon_unit(one: Resident, site: Site, pen: _Pen) -> File:
    """By `virt exec`, because User= is looked up on the host: a number of the tree's is refused there,
    or brings the groups of whom the host has by that number.
    """
    daemon = one.daemon
    words = ("--domain", one.domain, *_entrance(daemon), "--", daemon.program, *daemon.args)
    argv = [_quoted(word) for word in (site.virt, "--root", site.root, "exec", *words)]
    is_passed_on = daemon.stop_signal != "SIGWINCH" or daemon.isolation is Isolation.CHROOT
    text = pen.write(
        "systemd.daemon",
        daemon=daemon,
        domain=one.domain,
        argv=argv,
        limits=_LIMITS,
        left_out=_left_out(daemon, is_passed_on=is_passed_on),
        restart_seconds=min(1, daemon.backoff),
        stop_signal=daemon.stop_signal if is_passed_on else "SIGTERM",
    )
    return File(f"{_unit(f'{daemon.name}-{one.domain}')}.service", text)


def _entrance(daemon: Daemon) -> tuple[str, ...]:
    user = () if daemon.user == "root" else ("--user", daemon.user)
    # As under `virt serve`: what local(8) of postfix runs for a user must be able to send mail.
    way = "--chroot" if daemon.isolation is Isolation.CHROOT else "--allow-setid"
    return (*user, way)


def _left_out(daemon: Daemon, *, is_passed_on: bool) -> tuple[str, ...]:
    """What `virt serve` does for a daemon and its unit does not."""
    found = {
        "groups": bool(daemon.groups),
        "a wait that grows to backoff": daemon.restart != "no" and daemon.backoff > 1,
        f"stop_signal {daemon.stop_signal}": not is_passed_on,
    }
    return tuple(name for name, is_so in found.items() if is_so)


def _unit(name: str) -> str:
    """systemd.unit(5): letters, digits, ":-_." and backslash; all else is escaped."""
    plain = "".join(c if c.isalnum() or c in "-_." else f"\\x{ord(c):02x}" for c in name)
    return f"virt-{plain}"


def _quoted(word: str) -> str:
    """One word of a command line (systemd.service(5)): no specifier, variable or blank counts."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'
