"""How fast `virt create` is, whole: interpreter, survey, plan, build, scrub, scan, record, syncfs, rename.

Each round has a fresh ext4 in a file. Run as root: `python -m bench.create`. Mounts are seen by this process only.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.disk import disk, leave_mounts, used

ROUNDS = 5
DOMAINS = 1000
VIRT = Path(__file__).parents[1] / "bin" / "virt"


def seconds(argv: list[str], root: str) -> float:
    start = time.perf_counter()
    subprocess.run(
        argv, check=True, env={**os.environ, "VIRT_ROOT": root}, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def cold(scratch: Path) -> tuple[float, float]:
    """One domain in a root that does not exist yet, and a second one beside it."""
    with disk(scratch) as top:
        root = f"{top}/virtual"
        first = seconds([str(VIRT), "-q", "create", "domain1.com"], root)
        return first, seconds([str(VIRT), "-q", "create", "domain2.com"], root)


def many(scratch: Path) -> tuple[float, float]:
    """Seconds and bytes of disk for each of many domains that one call creates."""
    names = [f"d{number}.example" for number in range(DOMAINS)]
    with disk(scratch) as top:
        root = f"{top}/virtual"
        seconds([str(VIRT), "-q", "create", "first.example"], root)
        before = used(top)
        taken = seconds([str(VIRT), "-q", "create", *names], root)
        return taken / DOMAINS, (used(top) - before) / DOMAINS


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench/create.py: needs root: it mounts loop devices")
    leave_mounts()
    with tempfile.TemporaryDirectory(prefix="virttools-bench.") as scratch:
        rounds = [cold(Path(scratch)) for _ in range(ROUNDS)]
        each, space = many(Path(scratch))
    bare = median(seconds([sys.executable, "-I", "-S", "-c", "pass"], "/") for _ in range(20))
    print(f"a bare interpreter                           {bare * 1e3:7.1f} ms")
    print(
        f"virt create, the first domain of base        {median(r[0] for r in rounds) * 1e3:7.1f} ms  target 500"
    )
    print(
        f"virt create, a second                        {median(r[1] for r in rounds) * 1e3:7.1f} ms"
    )
    print(f"virt create with {DOMAINS} domains, for each        {each * 1e3:7.1f} ms  target 8")
    print(f"disk for each                                {space / 1e6:7.2f} MB  target 1")


if __name__ == "__main__":
    main()
