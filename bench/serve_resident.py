"""The server on a board of N domains with every limit set: `serve_resident.py ROOT N PORT ISOLATION [CPS]`.

CPS: how many connections a second the first domain takes, where the others take all.
"""

import os
import sys

sys.path.insert(0, __file__.rpartition("/bench/")[0])

from virttools.serve import supervisor
from virttools.serve.admission import Limits, Rate
from virttools.serve.board import Board, Endpoint, Place, Target
from virttools.serve.journal import Journal

_ENV = {b"PATH": b"/usr/bin:/bin", b"HOME": b"/root", b"USER": b"root", b"LOGNAME": b"root"}
_ALL = 1_000_000


def board(root: str, count: int, port: int, isolation: str, most: int) -> Board:
    """Domains as bench/serve.py makes them; no limit is ever reached, but each is asked."""
    targets, addresses = [], {}
    for number in range(count):
        domain = f"d{number}.test"
        found = os.stat(f"{root}/{domain}")
        place = Place(
            domain,
            f"{root}/{domain}",
            isolation=isolation,
            hostname=domain,
            identity=(found.st_dev, found.st_ino),
        )
        limits = Limits(
            instances=_ALL,
            per_source=_ALL,
            cps=Rate(_ALL if number else most, 1, 1),
            only_from=("127.0.0.0/8",),
        )
        targets.append(
            Target(
                "line",
                place,
                path=b"/bin/svc",
                argv=(b"svc",),
                env=_ENV,
                limits=limits,
                log_success=frozenset(("HOST", "PID", "EXIT", "DURATION")),
            )
        )
        addresses[f"127.0.{1 + number // 250}.{1 + number % 250}"] = number
    endpoint = Endpoint("tcp", "0.0.0.0", port, targets=addresses)
    return Board(tuple(targets), (endpoint,))


def main() -> int:
    root, count, port, isolation, *most = sys.argv[1:]
    settings = supervisor.Settings(
        lambda: board(root, int(count), int(port), isolation, int(most[0]) if most else _ALL),
        control="",
        cores=len(os.sched_getaffinity(0)),
        drain_seconds=1,
        journal=Journal(to_stderr=True),
        successor=[],
        check=[],
    )
    return supervisor.Supervisor(settings).run()


if __name__ == "__main__":
    sys.exit(main())
