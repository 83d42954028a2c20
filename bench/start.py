"""How long until a command runs inside: a bare interpreter, chroot(1), and the ways of virttools.

Interleaved rounds, medians of the wall clock, ratios to the bare interpreter. Needs root.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BIN = REPOSITORY / "bin"
ROUNDS = 200


def tree(folder: Path) -> None:
    """A domain that holds one static program, which returns at once."""
    (folder / "bin").mkdir(parents=True)
    subprocess.run(
        ["gcc", "-static", "-x", "c", "-o", folder / "bin" / "true", "-"],
        input=b"int main(void) { return 0; }",
        check=True,
    )


def links(folder: Path) -> tuple[Path, Path]:
    """A second checkout, by links, with virttrue beside its virt; and one in another folder."""
    (folder / "bin").mkdir()
    shutil.copy(BIN / "virt", folder / "bin" / "virt")
    for name in ("virttools", ".venv"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "bin" / "virttrue").symlink_to("virt")
    (folder / "virttrue").symlink_to(BIN / "virt")
    return folder / "bin" / "virttrue", folder / "virttrue"


def milliseconds(argv: list[str]) -> float:
    begin = time.perf_counter()
    child = os.posix_spawn(argv[0], argv, os.environ)
    _, status = os.waitpid(child, 0)
    spent = time.perf_counter() - begin
    if status:
        sys.exit(f"{argv}: status {os.waitstatus_to_exitcode(status)}")
    return spent * 1e3


def interpreter() -> str:
    """The one that bin/virt picks in a checkout."""
    own = REPOSITORY / ".venv" / "bin" / "python3"
    return str(own) if own.exists() else "/usr/bin/python3"


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench/start.py: only root may call chroot(2)")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder, "root")
        root.mkdir(mode=0o755)
        domain = root / "domain1.com"
        tree(domain)
        beside, elsewhere = links(Path(folder))
        os.environ["VIRT_ROOT"] = str(root)
        entering = [str(BIN / "virt"), "exec", "--domain", domain.name]
        ways = {
            "python3 -I -S -c pass": [interpreter(), "-I", "-S", "-c", "pass"],
            "virt exec -- true": [*entering, "--", "true"],
            "virt exec --chroot -- true": [*entering, "--chroot", "--", "true"],
            "virttrue, beside virt": [str(beside)],
            "virttrue, elsewhere": [str(elsewhere)],
            "chroot(1)": ["/usr/sbin/chroot", str(domain), "/bin/true"],
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, argv in ways.items():
                times[name].append(milliseconds(argv))
    report({name: statistics.median(spent) for name, spent in times.items()})


def report(medians: dict[str, float]) -> None:
    bare = medians["python3 -I -S -c pass"]
    print(f"{'until the command has run':<28}{'ms':>8}{'over bare':>12}{'x bare':>9}")
    for name, median in medians.items():
        print(f"{name:<28}{median:8.2f}{median - bare:+12.2f}{median / bare:9.2f}")


if __name__ == "__main__":
    main()
