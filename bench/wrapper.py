"""How long the one-shot wrapper takes: a connection under virtuald, the HOWTO's steps in C, a bare interpreter.

A static program that returns at once, interleaved rounds, medians; ratios to the interpreter. Needs root.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.start import BIN, interpreter, tree

ROUNDS = 200
DOMAINS = 1000
HOWTO = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    char line[4096], address[64], folder[4000];
    FILE *conf = argc > 2 ? fopen(argv[1], "r") : NULL;
    if (!conf || getsockname(0, (struct sockaddr *)&here, &size)) return 1;
    while (fgets(line, sizeof line, conf))
        if (sscanf(line, "%63s %3999s", address, folder) == 2 && !strcmp(address, inet_ntoa(here.sin_addr))) {
            if (chroot(folder) || chdir("/")) return 1;
            execv(argv[2], argv + 2);
            return 1;
        }
    return 1;
}
"""


def milliseconds(argv: list[str], fd: int) -> tuple[float, float]:
    """From the start of a program with the connection at 0, as inetd starts it, to its end; and CPU."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_DUP2, fd, 1)]
    begin = time.perf_counter()
    child = os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin"}, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    spent = time.perf_counter() - begin
    if status:
        sys.exit(f"{argv}: status {os.waitstatus_to_exitcode(status)}")
    return spent * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


def confs(folder: Path, domain: Path) -> tuple[Path, Path]:
    """Routes of one domain, and of a thousand of which ours is the last."""
    one, many = folder / "conf.1", folder / f"conf.{DOMAINS}"
    one.write_text(f"127.0.0.1 {domain}\n")
    others = (f"127.1.{number // 250}.{number % 250} {domain}\n" for number in range(DOMAINS - 1))
    many.write_text("".join(others) + one.read_text())
    return one, many


def ways(folder: Path) -> dict[str, list[str]]:
    domain = folder / "domain1.com"
    domain.mkdir(mode=0o755)
    tree(domain)
    wrapper = folder / "virtuald-c"
    subprocess.run(["gcc", "-O2", "-x", "c", "-o", wrapper, "-"], input=HOWTO.encode(), check=True)
    one, many = confs(folder, domain)
    virtuald, program = str(BIN / "virtuald"), "/bin/true"
    return {
        "python3 -I -S -c pass": [interpreter(), "-I", "-S", "-c", "pass"],
        "virtuald, 1 route": [virtuald, str(one), program],
        f"virtuald, {DOMAINS} routes": [virtuald, str(many), program],
        "virtuald --chroot, 1 route": [virtuald, "--chroot", str(one), program],
        "the HOWTO's steps in C": [str(wrapper), str(one), program],
    }


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench/wrapper.py: only root may enter a tree")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        found = ways(Path(name))
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in found}
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()),
            listener.accept()[0] as served,
        ):
            for _ in range(ROUNDS):
                for way, argv in found.items():
                    times[way].append(milliseconds(argv, served.fileno()))
    report(times)


def report(times: dict[str, list[tuple[float, float]]]) -> None:
    walls = {way: statistics.median(wall for wall, _ in spent) for way, spent in times.items()}
    cpus = {way: statistics.median(cpu for _, cpu in spent) for way, spent in times.items()}
    bare = "python3 -I -S -c pass"
    print(
        f"{'until the program has run':<32}{'ms':>8}{'over bare':>12}{'CPU ms':>9}{'over bare':>12}"
    )
    for way in times:
        wall, cpu = walls[way], cpus[way]
        print(f"{way:<32}{wall:8.2f}{wall - walls[bare]:+12.2f}{cpu:9.2f}{cpu - cpus[bare]:+12.2f}")


if __name__ == "__main__":
    main()
