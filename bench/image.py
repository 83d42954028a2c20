"""How fast a tree becomes an image, beside `tar | gzip` and `tar | zstd`, and how big, beside mmdebstrap.

Run as root: `python -m bench.image`. mmdebstrap needs Debian's packages to be reachable.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

VIRT = Path(__file__).parents[1] / "bin" / "virt"
ROUNDS = 5
SIZE = 130_000_000
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
PACKERS = {"gzip": ["gzip", "-c"], "zstd": ["zstd", "-q", "-T0", "-c"]}
"""Each as a person types it; zstd is told to use all cores, gzip cannot."""


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench/image.py: needs root: trees have files of several owners")
    with tempfile.TemporaryDirectory(prefix="virttools-bench.", dir="/var/tmp") as scratch:
        top = Path(scratch)
        os.environ["VIRT_ROOT"] = str(top / "virtual")
        (top / "virtual").mkdir(mode=0o755)
        (top / "tree.toml").write_text(manifest())
        virt("create", "bench.test", "-m", top / "tree.toml")
        for packer, argv in PACKERS.items():
            if shutil.which(packer):
                packed(top, packer, argv)
        unchanged(top)
        virt("remove", "--yes", "bench.test")
        if shutil.which("mmdebstrap"):
            minimal(top)
        else:
            print("mmdebstrap is not installed: no comparison with it", file=sys.stderr)


def manifest() -> str:
    """Base, and libraries of this machine until the tree has 130 MB."""
    chosen, size = [], 88_000_000
    for path in sorted(LIBRARIES.glob("*.so.*")):
        if path.is_symlink() or not path.is_file():
            continue
        chosen.append(str(path))
        size += path.stat().st_size
        if size >= SIZE:
            break
    return f'profiles = ["base"]\nlink = "copy"\nfiles = {chosen!r}\n'.replace("'", '"')


def packed(top: Path, packer: str, argv: list[str]) -> None:
    """A fresh layout, and the archive that tar and a packer make; interleaved."""
    tree = top / "virtual" / "bench.test"
    ours: list[float] = []
    theirs: list[float] = []
    work: list[float] = []
    layer = 0
    for _ in range(ROUNDS):
        begin = processor()
        theirs.append(timed(lambda: piped(tree, argv, top / "plain")))
        between = processor()
        ours.append(
            timed(lambda: virt("image", "bench.test", "-o", top / "x.oci", "--compression", packer))
        )
        work.append((processor() - between) / (between - begin))
        layer = max((path.stat().st_size for path in (top / "x.oci").rglob("*")), default=0)
        shutil.rmtree(top / "x.oci")
    ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
    kilobytes = sum(size for _, size in files(tree)) // 1000
    print(
        f"{kilobytes / 1000:.0f} MB to an OCI layout, {packer}: {median(ours):.2f} s"
        f"   tar | {' '.join(argv[:-1])} {median(theirs):.2f} s   ratio {ratio:.2f}"
        f"   of processor time {median(work):.2f}"
        f"   size {layer / (top / 'plain').stat().st_size:.2f} x"
    )


def unchanged(top: Path) -> None:
    """The same image into the layout that has it."""
    out = top / "again.oci"
    virt("image", "bench.test", "-o", out)
    found = [timed(lambda: virt("image", "bench.test", "-o", out)) for _ in range(ROUNDS)]
    print(f"again, with nothing changed: {median(found):.2f} s")
    shutil.rmtree(out)


def minimal(top: Path) -> None:
    """From a manifest to an archive of `base`, and mmdebstrap's smallest system."""
    theirs = timed(
        lambda: subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", top / "min.tar"], check=True
        )
    )
    ours = median(
        timed(lambda: virt("image", "-p", "base", "-o", top / "base.tar")) for _ in range(ROUNDS)
    )
    sizes = [(top / name).stat().st_size for name in ("base.tar", "min.tar")]
    print(
        f"base from its manifest: {ours:.2f} s, {sizes[0] / 1e6:.0f} MB"
        f"   mmdebstrap --variant=minbase {theirs:.2f} s, {sizes[1] / 1e6:.0f} MB"
        f"   ratios {ours / theirs:.3f} (time), {sizes[0] / sizes[1]:.3f} (size)"
    )


def virt(*words: object) -> None:
    subprocess.run([VIRT, "--quiet", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


def piped(tree: Path, argv: list[str], out: Path) -> None:
    """`tar -c TREE | PACKER > OUT`."""
    with (
        open(out, "wb") as file,
        subprocess.Popen(
            ["tar", "-C", tree, "--exclude=./dev/log", "-cf", "-", "."], stdout=subprocess.PIPE
        ) as tar,
    ):
        subprocess.run(argv, stdin=tar.stdout, stdout=file, check=True)


def files(tree: Path) -> Iterator[tuple[Path, int]]:
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.stat().st_size


def processor() -> float:
    """Seconds that ended children worked: what a busy machine distorts less than the clock."""
    spent = os.times()
    return spent.children_user + spent.children_system


def timed(run: Callable[[], object]) -> float:
    begin = time.monotonic()
    run()
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
