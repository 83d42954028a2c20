"""Doer: the server's counters as a Prometheus text file, for the textfile collector of a node exporter."""

import contextlib
import os
from collections.abc import Iterable

from virttools.errors import ApplyError
from virttools.serve.status import Status

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


def text(status: Status) -> str:
    """The metrics in the Prometheus text format 0.0.4; the time series of a domain go when it goes."""
    lines: list[str] = []
    _add_server(lines, status)
    _add_services(lines, status)
    _add_periodic(lines, status)
    _add_daemons(lines, status)
    return "".join(line + "\n" for line in lines)


def _add_server(lines: list[str], status: Status) -> None:
    version = [((("version", status.version),), 1)]
    _add(lines, "info", "gauge", "The version of the server.", version)
    _add(lines, "uptime_seconds", "gauge", "Seconds since the start.", [((), status.uptime)])
    _add(lines, "spawners", "gauge", "Processes that start programs.", [((), status.spawners)])
    results = (("done", status.reloads), ("refused", status.failed_reloads))
    reloads = [((("result", result),), count) for result, count in results]
    _add(lines, "reloads_total", "counter", "Reloads of the configuration.", reloads)
    _add(lines, "unrouted_total", "counter", "Connections to no domain.", [((), status.unrouted)])
    _add(lines, "lost_log_lines_total", "counter", "Log lines not sent.", [((), status.lost)])


def _add_services(lines: list[str], status: Status) -> None:
    of = [((("service", it.service), ("domain", it.domain)), it) for it in status.served]
    live = [(labels, it.live) for labels, it in of]
    _add(lines, "connections", "gauge", "Live connections.", live)
    served = [(labels, it.served) for labels, it in of]
    _add(lines, "served_total", "counter", "Connections served.", served)
    failed = [(labels, it.failed) for labels, it in of]
    _add(lines, "failed_total", "counter", "Programs that could not be started.", failed)
    refused = [
        ((*labels, ("reason", reason)), count) for labels, it in of for reason, count in it.refused
    ]
    _add(lines, "refused_total", "counter", "Connections refused by a limit.", refused)


def _add_periodic(lines: list[str], status: Status) -> None:
    of = [((("command", it.command), ("domain", it.domain)), it) for it in status.periodic]
    runs = [(labels, it.runs) for labels, it in of]
    _add(lines, "runs_total", "counter", "Periodic runs.", runs)
    failed = [(labels, it.failed) for labels, it in of]
    _add(lines, "failed_runs_total", "counter", "Periodic runs that failed.", failed)


def _add_daemons(lines: list[str], status: Status) -> None:
    of = [((("daemon", it.daemon), ("domain", it.domain)), it) for it in status.daemons]
    up = [(labels, int(it.state == "running")) for labels, it in of]
    _add(lines, "daemon_up", "gauge", "Whether a daemon runs.", up)
    starts = [(labels, it.restarts) for labels, it in of]
    _add(lines, "daemon_restarts_total", "counter", "Restarts of a daemon.", starts)


def _add(
    lines: list[str],
    name: str,
    kind: str,
    told: str,
    samples: Iterable[tuple[tuple[tuple[str, str], ...], int]],
) -> None:
    whole = f"virt_serve_{name}"
    lines += [f"# HELP {whole} {told.translate(_HELP_ESCAPES)}", f"# TYPE {whole} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{label.translate(_ESCAPES)}"' for key, label in labels)
        lines.append(f"{whole}{{{inside}}} {value}" if inside else f"{whole} {value}")


def write(path: str, status: Status) -> None:
    """Write the file anew, at once: who reads it sees the old one or the new one. Raises ApplyError.

    Its folder is trusted to be one that only root may write to.
    """
    try:
        _write(path, text(status))
    except OSError as error:
        raise ApplyError(
            f"cannot write {path}: {error.strerror}", hint="name a file in a folder that is there"
        ) from error


def _write(path: str, content: str) -> None:
    folder, name = os.path.split(path)
    # a collector takes *.prom, so not what is being written
    beside = os.path.join(folder, f".{name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)  # of one that was killed while it wrote, with our number
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(content)
            os.fchmod(fd, 0o644)
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
