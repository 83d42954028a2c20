"""`virt exec --all` over 100 domains: against as many runs of chroot(1) by xargs -P, and what the cores allow.

The command is a static program that counts for some milliseconds, as a look at a mail queue might.
Interleaved rounds, medians of the wall clock. Needs root.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
VIRT = REPOSITORY / "bin" / "virt"
DOMAINS = 100
ROUNDS = 5
CORES = len(os.sched_getaffinity(0))

WORK = """
#include <stdlib.h>
#include <time.h>
int main(int argc, char **argv) {
    struct timespec spent;
    long wanted = argc > 1 ? atol(argv[1]) * 1000000 : 0;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    while (spent.tv_sec * 1000000000 + spent.tv_nsec < wanted);
    return 0;
}
"""


def build(root: Path) -> None:
    """A hundred domains that share one program."""
    first = root / "work"
    subprocess.run(
        ["gcc", "-static", "-O2", "-x", "c", "-o", first, "-"], input=WORK.encode(), check=True
    )
    for number in range(DOMAINS):
        domain = root / f"domain{number}.com"
        (domain / "bin").mkdir(parents=True)
        os.link(first, domain / "bin" / "work")
    first.unlink()


def run(argv: list[str], text: str = "") -> None:
    subprocess.run(
        argv, input=text, text=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def ways(root: Path, milliseconds: int) -> dict[str, Callable[[], None]]:
    """Each way to do that much work in every domain."""
    work = ["/bin/work", str(milliseconds)]
    trees = "\n".join(str(tree) for tree in root.iterdir())
    xargs = ["xargs", f"-P{CORES}", "-I{}", "/usr/sbin/chroot", "{}", *work]
    every = [str(VIRT), "exec", "--all"]
    return {
        f"xargs -P{CORES} chroot(1)": lambda: run(xargs, trees),
        "virt exec --all --chroot": lambda: run([*every, "--chroot", "--", *work]),
        "virt exec --all": lambda: run([*every, "--", *work]),
    }


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench/many.py: only root may call chroot(2)")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder, "root")
        root.mkdir(mode=0o755)
        build(root)
        os.environ["VIRT_ROOT"] = str(root)
        for milliseconds in (0, 20, 50):
            report(milliseconds, measure(ways(root, milliseconds)))


def measure(known: dict[str, Callable[[], None]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in known}
    for _ in range(ROUNDS):
        for name, call in known.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(spent) for name, spent in times.items()}


def report(milliseconds: int, medians: dict[str, float]) -> None:
    bound = DOMAINS * milliseconds / CORES / 1e3
    reference = next(iter(medians.values()))
    print(
        f"{DOMAINS} domains, {milliseconds} ms of work in each, {CORES} cores: at least {bound:.2f} s"
    )
    print(f"{'':<28}{'s':>8}{'of chroot(1)':>14}{'of the cores':>14}")
    for name, median in medians.items():
        share = f"{bound / median:13.0%}" if bound else f"{'-':>13}"
        print(f"{name:<28}{median:8.3f}{reference / median:14.0%} {share}")
    print()


if __name__ == "__main__":
    main()
