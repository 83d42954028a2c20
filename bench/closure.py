"""How long the library closures of 200 binaries take: ldd one by one, scanelf, and our reader.

Interleaved rounds, medians of the wall clock. Ours is a new interpreter each round, its import
of the reader included; the sets must be equal, or the figures mean nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[1]
FILES = 200
ROUNDS = 9

OURS = """
import time
begin = time.perf_counter()
import sys
sys.path.insert(0, sys.argv[1])
from virttools.host.closure import Resolver
resolver = Resolver()
closures = [resolver.closure(path) for path in sys.argv[2:]]
spent = time.perf_counter() - begin
import json
print(json.dumps([spent, [[library.path for library in found.libraries] for found in closures]]))
"""


def binaries() -> list[str]:
    """The real paths of dynamic programs of this host, evenly spread over the alphabet."""
    found = set()
    for folder in ("/usr/bin", "/usr/sbin"):
        for entry in os.scandir(folder):
            path = os.path.realpath(entry.path)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    head = file.read(4096)
                if head.startswith(b"\x7fELF") and b"/ld-linux" in head:
                    found.add(path)
    paths = sorted(found)
    return [paths[index * len(paths) // FILES] for index in range(min(FILES, len(paths)))]


def by_ldd(paths: list[str]) -> tuple[float, list[list[str]]]:
    begin = time.perf_counter()
    found = []
    for path in paths:
        text = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        words = (line.partition(" => ")[2] or line.strip() for line in text.splitlines())
        found.append(sorted(word.split(" (0x")[0] for word in words if word.startswith("/")))
    return time.perf_counter() - begin, found


def by_scanelf(program: str, paths: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([program, "-n", *paths], capture_output=True, check=True)
    return time.perf_counter() - begin


def by_us(paths: list[str]) -> tuple[float, float, list[list[str]]]:
    """Seconds of import and reading, seconds of the whole process, and the sets."""
    argv = [sys.executable, "-I", "-S", "-c", OURS, str(REPOSITORY), *paths]
    begin = time.perf_counter()
    text = subprocess.run(argv, capture_output=True, check=True).stdout
    whole = time.perf_counter() - begin
    spent, found = json.loads(text)
    return spent, whole, found


def main() -> None:
    paths = binaries()
    scanelf = shutil.which("scanelf")
    by_us(paths)  # writes the byte code, as an installation has
    expected = by_ldd(paths)[1]
    every = sorted({path for libraries in expected for path in libraries} | set(paths))
    figures: dict[str, list[float]] = {}
    is_equal = True
    for _ in range(ROUNDS):
        spent, whole, found = by_us(paths)
        is_equal &= found == expected
        figures.setdefault("virttools", []).append(spent)
        figures.setdefault("virttools, with the interpreter's start", []).append(whole)
        if scanelf:
            figures.setdefault("scanelf -n", []).append(by_scanelf(scanelf, paths))
            with_libraries = f"scanelf -n, and of their {len(every) - len(paths)} libraries"
            figures.setdefault(with_libraries, []).append(by_scanelf(scanelf, every))
        figures.setdefault("ldd, one call each", []).append(by_ldd(paths)[0])
    show(figures, len(paths))
    print(f"sets identical with ldd's: {'yes' if is_equal else 'NO'}")
    if scanelf is None:
        print("scanelf is not installed (package pax-utils): no comparison with it")
    if not is_equal:
        sys.exit(1)


def show(figures: dict[str, list[float]], count: int) -> None:
    """A line each: milliseconds, and how many times ours that is."""
    ours = median(figures["virttools"])
    print(f"{f'library closures of {count} binaries':<46}  {'ms':>8}  {'/ ours':>7}  {'ours /':>7}")
    for name, seconds in figures.items():
        took = median(seconds)
        print(f"{name:<46}  {took * 1e3:8.1f}  {took / ours:7.2f}  {ours / took:7.2f}")


if __name__ == "__main__":
    main()
