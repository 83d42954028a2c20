"""A connection answered by a fresh process in its domain: inetd with a C wrapper, tcpd, the limit, and ours.

All servers are up at once; rounds are interleaved, medians and per-round ratios printed. CPU is that
of the server's whole process tree, by its cgroup. Needs root and openbsd-inetd.
"""

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.disk import leave_mounts

HERE = Path(__file__).parent
PYTHON = Path(__file__).parents[1] / ".venv" / "bin" / "python3"
INETD, TCPD = "/usr/sbin/inetd", "/usr/sbin/tcpd"
ROUNDS = 7
MILLISECONDS = 700
FIRST, LIMIT = "inetd + C wrapper", "limit: C accept, vfork"
NAMESPACE, CHROOT = "virt serve, namespace", "virt serve, chroot"


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the client saw: connections per second, latency and CPU in us."""

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Served:
    name: str
    port: int
    group: Path
    process: subprocess.Popen[bytes]


def build(folder: Path) -> None:
    for name in ("service", "wrapper", "limit", "client"):
        source = HERE / f"serve_{name}.c"
        words = ["-static"] if name == "service" else ["-pthread"]
        subprocess.run(["gcc", "-O2", *words, "-o", folder / name, source], check=True)


def domains(folder: Path, count: int) -> None:
    """Trees of one static program, and a conf file of the HOWTO."""
    lines = []
    for number in range(count):
        place = folder / f"d{number}.test" / "bin"
        place.mkdir(parents=True)
        os.link(folder / "service", place / "svc")
        address = f"127.0.{1 + number // 250}.{1 + number % 250}"
        lines.append(f"{address} {place.parent}\n")
    (folder / "conf").write_text("".join(lines))


@contextmanager
def scratch() -> Iterator[tuple[Path, Path]]:
    """A folder, and the top of all cgroups in it; mounts are this process's own from now on."""
    leave_mounts()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder, top = Path(name), Path(name, "cgroup")
        folder.chmod(0o755)
        top.mkdir()
        subprocess.run(["mount", "-t", "cgroup2", "none", top], check=True)
        try:
            yield folder, top
        finally:
            subprocess.run(["umount", top], check=True)


@contextmanager
def group(top: Path, name: str) -> Iterator[Path]:
    """A cgroup of its own."""
    made = top / f"virttools-bench-{os.getpid()}-{name}"
    made.mkdir()
    try:
        yield made
    finally:
        for _ in range(50):
            if not (made / "cgroup.procs").read_text():
                break
            time.sleep(0.1)
        made.rmdir()


@contextmanager
def running(top: Path, name: str, port: int, argv: list[str]) -> Iterator[Served]:
    """A server that listens."""
    with group(top, str(port)) as own:
        join = f'echo $$ > {own}/cgroup.procs; exec "$0" "$@"'
        process = subprocess.Popen(
            ["/bin/sh", "-c", join, *argv], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait(port, process)
            yield Served(name, port, own, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.1.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
            if process.poll() is not None:
                sys.exit(f"port {port}: status {process.returncode}")
        else:
            return
    sys.exit(f"port {port}: nobody listens")


def servers(folder: Path, count: int) -> dict[str, tuple[int, list[str]]]:
    """What is compared, by name: its port and its command."""
    base = 9400
    conf, wrapper = str(folder / "conf"), str(folder / "wrapper")
    found = {FIRST: (base, inetd(folder, base, f"{wrapper} wrapper {conf} /bin/svc"))}
    if os.path.exists(TCPD):
        line = f"{TCPD} {wrapper} {conf} /bin/svc"
        found["inetd + tcpd + C wrapper"] = (base + 1, inetd(folder, base + 1, line))
    limit = [str(folder / "limit"), conf, str(base + 2), "/bin/svc"]
    found[LIMIT] = (base + 2, limit)
    for name, port in ((CHROOT, base + 3), (NAMESPACE, base + 4)):
        resident = [str(PYTHON), "-I", "-S", str(HERE / "serve_resident.py")]
        isolation = name.rpartition(" ")[2]
        found[name] = (port, [*resident, str(folder), str(count), str(port), isolation])
    return found


def inetd(folder: Path, port: int, line: str) -> list[str]:
    conf = folder / f"inetd.{port}"
    conf.write_text(f"{port} stream tcp4 nowait.1000000 root {line}\n")
    return [INETD, "-i", "-R", "0", "-q", "1024", str(conf)]


def cpu(served: Served) -> int:
    """Microseconds that the whole tree has used."""
    return int((served.group / "cpu.stat").read_text().split()[1])


def memory(served: Served) -> str:
    """Resident kB of each process."""
    sizes = []
    for pid in (served.group / "cgroup.procs").read_text().split():
        status = Path(f"/proc/{pid}/status").read_text()
        sizes.append(int(status.partition("VmRSS:")[2].split()[0]))
    return "+".join(str(size) for size in sizes)


def measure(folder: Path, served: Served, count: int, clients: int) -> Run:
    before = cpu(served)
    told = subprocess.run(
        [folder / "client", str(served.port), str(count), str(clients), str(MILLISECONDS)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    time.sleep(0.05)  # the last ones are reaped
    connections, seconds, p50, p99, wrong = (float(word) for word in told)
    if wrong:
        sys.exit(f"{served.name}: {wrong:.0f} of {connections:.0f} answers were wrong")
    return Run(connections / seconds, p50, p99, (cpu(served) - before) / connections)


def compare(folder: Path, top: Path, count: int) -> None:
    with ExitStack() as stack:
        up = [
            stack.enter_context(running(top, name, port, argv))
            for name, (port, argv) in servers(folder, count).items()
        ]
        for clients in (1, 8):
            runs: dict[str, list[Run]] = {served.name: [] for served in up}
            for turn in range(ROUNDS + 1):
                for served in up:
                    run = measure(folder, served, count, clients)
                    if turn:  # the first warms up
                        runs[served.name].append(run)
            report(f"{count} domains, {clients} clients", runs)
            dearer = ratio(runs[NAMESPACE], runs[CHROOT], "cpu") - 1
            print(f"namespace over chroot, CPU: {dearer:+.1%}\n")
        print("resident kB: " + ", ".join(f"{one.name} {memory(one)}" for one in up))


def report(title: str, runs: dict[str, list[Run]]) -> None:
    """Medians, and the ratios to those references that were measured too."""
    bases = {name: base for name, base in ((FIRST, "first"), (LIMIT, "limit")) if name in runs}
    heads = [f"{what} {base}" for what in ("x", "CPU/") for base in bases.values()]
    print(f"{title:<26}{'conn/s':>8}{'p50 us':>8}{'p99 us':>8}{'CPU us':>8}", end="")
    print("".join(f"{head.replace('/ ', '/'):>11}" for head in heads))
    for name, found in runs.items():
        middle = [statistics.median(getattr(run, key) for run in found) for key in Run.__slots__]
        print(f"{name:<26}" + "".join(f"{value:8.0f}" for value in middle), end="")
        pairs = [(key, base) for key in ("rate", "cpu") for base in bases]
        print("".join(f"{ratio(found, runs[base], key):11.2f}" for key, base in pairs))


def ratio(found: list[Run], base: list[Run], key: str) -> float:
    """The median of the ratios of the rounds."""
    pairs = zip(found, base, strict=True)
    ratios: list[float] = [getattr(run, key) / getattr(other, key) for run, other in pairs]
    return statistics.median(ratios)


def main() -> None:
    if os.geteuid() != 0 or not os.path.exists(INETD):
        sys.exit("bench/serve.py: needs root, and inetd (openbsd-inetd)")
    with scratch() as (folder, top):
        for count in (16, 1000):
            place = folder / str(count)
            place.mkdir(mode=0o755)
            build(place)
            domains(place, count)
            compare(place, top, count)
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
