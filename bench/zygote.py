"""A service written in Python: a fresh interpreter by inetd and by `virt serve`, and a fork of a zygote.

Rounds are interleaved, medians and per-round ratios printed. CPU is that of the server's whole
process tree, by its cgroup. Needs root and openbsd-inetd.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench import serve

ROUNDS = 7
VIRT = serve.HERE.parent / "bin" / "virt"
ADDRESS = "127.0.1.1"
PLAIN, ZYGOTE = "virt serve", "virt serve, zygote"
PORTS = {serve.FIRST: 9430, PLAIN: 9431, ZYGOTE: 9432}
SERVICE = """#!/usr/bin/python3 -IS
import sys
sys.stdout.write(sys.stdin.readline())
"""
MANIFEST = """
profiles = []
binaries = ["python3"]
directories = ["/srv"]
"""


def table(name: str, port: int, more: str) -> str:
    return f'[[services]]\nname = "{name}"\nport = {port}\nprogram = "/srv/echo"\n{more}\n'


def domain(root: Path) -> None:
    """A tree with Python and the service in it."""
    root.mkdir(mode=0o755)
    manifest = root.parent / "python.toml"
    manifest.write_text(
        MANIFEST
        + table("plain", PORTS[PLAIN], "")
        + table("forked", PORTS[ZYGOTE], "zygote = true")
    )
    words = ["create", "python.test", "-m", str(manifest), "--ip", ADDRESS]
    subprocess.run([VIRT, "--quiet", "--root", root, *words], check=True)
    service = root / "python.test" / "srv" / "echo"
    service.write_text(SERVICE)
    service.chmod(0o755)
    (root.parent / "conf").write_text(f"{ADDRESS} {root}/python.test\n")


def compare(folder: Path, top: Path) -> None:
    root = folder / "virtual"
    port = PORTS[serve.FIRST]
    line = f"{folder}/wrapper wrapper {folder}/conf /srv/echo"
    ours = [str(VIRT), "--root", str(root), "serve", "--log", "stderr"]
    with ExitStack() as stack:
        first = serve.running(top, serve.FIRST, port, serve.inetd(folder, port, line))
        up = {serve.FIRST: stack.enter_context(first)}
        # One server, two services: each is measured while the other has nothing to do.
        server = stack.enter_context(serve.running(top, PLAIN, PORTS[PLAIN], ours))
        for name in (PLAIN, ZYGOTE):
            up[name] = serve.Served(name, PORTS[name], server.group, server.process)
        for clients in (1, 8):
            runs: dict[str, list[serve.Run]] = {name: [] for name in up}
            for turn in range(ROUNDS + 1):
                for name, served in up.items():
                    run = serve.measure(folder, served, 1, clients)
                    if turn:  # the first warms up
                        runs[name].append(run)
            serve.report(f"Python, {clients} clients", runs)


def main() -> None:
    if os.geteuid() != 0 or not os.path.exists(serve.INETD):
        sys.exit("bench/zygote.py: needs root, and inetd (openbsd-inetd)")
    with serve.scratch() as (folder, top):
        serve.build(folder)
        domain(folder / "virtual")
        compare(folder, top)
        words = ["remove", "--yes", "python.test"]
        subprocess.run([VIRT, "--quiet", "--root", folder / "virtual", *words], check=True)


if __name__ == "__main__":
    main()
