"""A flood on one domain: what the 99th percentile of another's connections is then, over its quiet one.

The flooded domain has a limit of its own, as a host would give it (cps). Rounds are interleaved. Those who
flood have machines of their own in life: here they run when nobody else wants to (SCHED_IDLE). inetd with
the C wrapper knows no limit of a domain. Needs root and openbsd-inetd.
"""

import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench import serve

ROUNDS = 9
MILLISECONDS = 1000
CPS = 100
FLOODS = (8, 64)
OURS = "virt serve"


def servers(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """What is compared, by name: its port and its command."""
    conf, wrapper = folder / "conf", folder / "wrapper"
    resident = [str(serve.PYTHON), "-I", "-S", str(serve.HERE / "serve_resident.py")]
    return {
        serve.FIRST: (9420, serve.inetd(folder, 9420, f"{wrapper} wrapper {conf} /bin/svc")),
        OURS: (9421, [*resident, str(folder), "2", "9421", "namespace", str(CPS)]),
    }


def client(folder: Path, port: int, clients: int, first: int) -> subprocess.Popen[str]:
    own = ["chrt", "--idle", "0"] if not first else []
    words = [
        *own,
        str(folder / "client"),
        str(port),
        "1",
        str(clients),
        str(MILLISECONDS),
        str(first),
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def told(running: subprocess.Popen[str]) -> list[float]:
    """Connections, seconds, p50, p99, wrong."""
    return [float(word) for word in running.communicate()[0].split()]


def compare(folder: Path, top: Path) -> None:
    with ExitStack() as stack:
        up = {
            name: (port, stack.enter_context(serve.running(top, name, port, argv)))
            for name, (port, argv) in servers(folder).items()
        }
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(ROUNDS):
            for name, (port, _) in up.items():
                for clients in (0, *FLOODS):
                    flood = client(folder, port, clients, 0) if clients else None
                    other = told(client(folder, port, 1, 1))
                    if other[4]:
                        sys.exit(f"{name}: {other[4]:.0f} answers of the other domain were wrong")
                    rate = told(flood)[0] / MILLISECONDS * 1000 if flood else 0.0
                    found.setdefault((name, clients), []).append((other[3], rate))
        report(found)


def report(found: dict[tuple[str, int], list[tuple[float, float]]]) -> None:
    print(f"{'the other domain':<22}{'flood':>12}{'flood/s':>9}{'p99 us':>9}{'x quiet':>9}")
    for (name, clients), runs in found.items():
        quiet = found[name, 0]
        ratio = statistics.median(now[0] / then[0] for now, then in zip(runs, quiet, strict=True))
        p99, rate = (statistics.median(one[at] for one in runs) for at in (0, 1))
        flood = f"{clients} clients" if clients else "none"
        print(f"{name:<22}{flood:>12}{rate:9.0f}{p99:9.0f}{ratio:9.2f}")


def main() -> None:
    if os.geteuid() != 0 or not os.path.exists(serve.INETD):
        sys.exit("bench/flood.py: needs root, and inetd (openbsd-inetd)")
    with serve.scratch() as (folder, top):
        serve.build(folder)
        serve.domains(folder, 2)
        compare(folder, top)


if __name__ == "__main__":
    main()
