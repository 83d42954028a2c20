"""Values: what the server says of itself: its services, the connections of each domain, counters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from virttools.serve.messages import counted, lasting

HEADING = ("service", "domain", "listens on", "live", "served", "failed", "refused")
DAEMON_HEADING = ("daemon", "domain", "state", "pid", "up", "restarts", "last end")
PERIODIC_HEADING = ("command", "domain", "every", "runs", "failed", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One service of one domain. live: connections now; the others: since the server started.

    failed: programs that could not be started; refused: how often for each reason.
    """

    service: str
    domain: str
    listens: tuple[str, ...] = ()
    live: int = 0
    served: int = 0
    failed: int = 0
    refused: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic:
    """A periodic command of a domain. failed: runs that ended other than by status 0."""

    command: str
    domain: str
    every: int
    runs: int = 0
    failed: int = 0
    is_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A daemon of a domain. state: running, waiting for its restart, stopping, or ended for good.

    pid: 0 where it does not run; since: when it was started, in seconds of the epoch; last: how it ended.
    """

    daemon: str
    domain: str
    state: str
    pid: int = 0
    since: int = 0
    restarts: int = 0
    last: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The whole. unrouted: connections to an address that has no domain; lost: log lines that could not be sent.

    is_reloading: one is going on; trouble: why the last one was refused, "" where it was not.
    """

    version: str
    pid: int
    uptime: int
    spawners: int
    reloads: int = 0
    failed_reloads: int = 0
    unrouted: int = 0
    lost: int = 0
    is_reloading: bool = False
    trouble: str = ""
    served: tuple[Served, ...] = ()
    periodic: tuple[Periodic, ...] = ()
    daemons: tuple[Running, ...] = ()

    def live(self) -> dict[str, int]:
        """The connections that each domain has now, over all its services."""
        found: dict[str, int] = {}
        for one in self.served:
            found[one.domain] = found.get(one.domain, 0) + one.live
        return found

    def document(self) -> dict[str, Any]:
        """For JSON: every number by name, refusals by their reason."""
        whole = asdict(self)
        for one, row in zip(self.served, whole["served"], strict=True):
            row["refused"] = dict(one.refused)
        whole["live"] = self.live()
        return whole


def read(document: dict[str, Any]) -> Status:
    """The status that `document` was made of. Raises ValueError where it is another's."""
    try:
        plain = {field.name: document[field.name] for field in fields(Status)}
        plain["served"] = tuple(_served(row) for row in plain["served"])
        plain["periodic"] = tuple(Periodic(**row) for row in plain["periodic"])
        plain["daemons"] = tuple(Running(**row) for row in plain["daemons"])
        return Status(**plain)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a status of this version: {error}") from error


def _served(row: dict[str, Any]) -> Served:
    refused = tuple(row["refused"].items())
    return Served(**{**row, "listens": tuple(row["listens"]), "refused": refused})


def headline(status: Status) -> str:
    """The server itself, in a line."""
    return ", ".join(
        (
            f"pid {status.pid}",
            f"up {lasting(status.uptime)}",
            counted(status.spawners, "spawner"),
            counted(status.reloads, "reload"),
            f"{counted(status.unrouted, 'connection')} to no domain",
        )
    )


def rows(status: Status) -> list[tuple[str, ...]]:
    """A line for each service of each domain, under HEADING."""
    return [
        (
            one.service,
            one.domain,
            " ".join(one.listens) or "-",
            str(one.live),
            str(one.served),
            str(one.failed),
            _refusals(one.refused),
        )
        for one in status.served
    ]


def _refusals(refused: Sequence[tuple[str, int]]) -> str:
    """How many, and for what: `15 per_source=12 cps=3`; 0 where none was."""
    named = [f"{reason}={count}" for reason, count in refused if count]
    return " ".join([str(sum(count for _, count in refused)), *named])


def periodic_rows(status: Status) -> list[tuple[str, ...]]:
    """A line for each periodic command, under PERIODIC_HEADING."""
    return [
        (
            one.command,
            one.domain,
            lasting(one.every),
            str(one.runs),
            str(one.failed),
            "running" if one.is_running else "waiting",
        )
        for one in status.periodic
    ]


def daemon_rows(status: Status, now: float) -> list[tuple[str, ...]]:
    """A line for each daemon, under DAEMON_HEADING."""
    return [
        (
            one.daemon,
            one.domain,
            one.state,
            str(one.pid or "-"),
            lasting(max(0, int(now) - one.since)) if one.since else "-",
            str(one.restarts),
            one.last or "-",
        )
        for one in status.daemons
    ]
