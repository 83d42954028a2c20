"""`virt log serve` beside rsyslogd and inetutils-syslogd: four senders that wait, and nothing lost.

Interleaved rounds, medians of messages a second until the last line is in the file. Needs root.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.system import logdaemons
from tests.system.logdaemons import Daemon, Packages, listens
from tests.system.waiting import until
from virttools.devlog import handover

REPOSITORY = Path(__file__).parents[1]
ROUNDS = 3
SENDERS = 4
MESSAGES = 50_000
MANY = 1000

# Sends MESSAGES to the sockets in turn, as syslog(3) does: connected, blocking, 110 bytes or so.
SENDER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int count = atoi(argv[1]), sockets = argc - 2, *fds = malloc(sizeof(int) * sockets);
    struct rlimit room = {20000, 20000};
    setrlimit(RLIMIT_NOFILE, &room);
    for (int i = 0; i < sockets; i++) {
        struct sockaddr_un to = {AF_UNIX};
        strcpy(to.sun_path, argv[i + 2]);
        fds[i] = socket(AF_UNIX, SOCK_DGRAM, 0);
        if (connect(fds[i], (struct sockaddr *)&to, sizeof to)) { perror(to.sun_path); return 1; }
    }
    for (int i = 0; i < count; i++) {
        char text[256];
        int size = sprintf(text, "<30>Nov 20 15:13:49 sender[%d]: message %d of a program that says what it did "
                                 "for somebody at 192.0.2.1", getpid(), i);
        if (send(fds[(i + getpid()) % sockets], text, size, 0) != size) { perror("send"); return 1; }
    }
    return 0;
}
"""


def sent(program: Path, paths: Sequence[Path], file: Path) -> float:
    """Messages a second, from the first to the last line written; every one must be there."""
    begin = time.perf_counter()
    argv = [str(program), str(MESSAGES), *map(str, paths)]
    senders = [subprocess.Popen(argv) for _ in range(SENDERS)]
    assert [one.wait() for one in senders] == [0] * SENDERS
    wanted = SENDERS * MESSAGES
    while (lines := count(file)) < wanted:
        assert time.perf_counter() - begin < 60, f"{wanted - lines} of {wanted} messages lost"
        time.sleep(0.01)
    assert lines == wanted
    return wanted / (time.perf_counter() - begin)


def count(file: Path) -> int:
    """The lines about messages of ours; a daemon has some to say of itself."""
    return file.read_bytes().count(b": message ") if file.exists() else 0


@contextmanager
def started(daemon: Daemon) -> Iterator[None]:
    daemon.start()
    try:
        yield
    finally:
        daemon.stop()


@contextmanager
def served(root: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`virt log serve` for sockets that are handed over, as create does."""
    argv = [str(REPOSITORY / "bin" / "virt"), "--root", str(root), "log", "serve"]
    more = ["--logs", str(root.parent / "logs"), "--rate", "0", *options]
    process = subprocess.Popen([*argv, *more], stderr=subprocess.DEVNULL)
    try:
        until((root / ".virt/log").is_dir)
        log_fd = os.open(root / ".virt/log", os.O_RDONLY)
        until(lambda: handover.drop(log_fd, ["domain0.com"]))
        os.close(log_fd)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def given(root: Path, total: int) -> list[Path]:
    """Hand over the sockets of that many domains; where they are."""
    folder = root / ".virt/log"
    paths = [folder / f"domain{number}.com" for number in range(total)]
    log_fd = os.open(folder, os.O_RDONLY)
    for path in paths:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.bind(str(path))
            assert handover.hand_over(log_fd, [(path.name, one)])
    os.close(log_fd)
    return paths


def ours(program: Path, root: Path, total: int, *options: str) -> tuple[float, int, int]:
    """Messages a second, and kB of the receiver and of its holder."""
    logs = root.parent / "logs"
    with served(root, *options) as process:
        paths = given(root, total)
        files = [logs / "domains" / f"{path.name}.log" for path in paths]
        warm(paths, files)
        is_combined = "--no-combined" not in options
        rate = sent(program, paths, logs / "all.log" if is_combined else files[0])
        assert sum(count(file) for file in files) == SENDERS * MESSAGES
        return rate, resident(receiver(process.pid)), resident(process.pid)


def warm(paths: Sequence[Path], files: Sequence[Path]) -> None:
    """Have every file there and open, as theirs are, and nothing of an earlier round in it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        for path in paths:
            one.sendto(b"<30>warm: up", str(path))
    until(lambda: all(file.exists() and file.stat().st_size for file in files))
    for file in (*files, files[0].parents[1] / "all.log"):
        if file.exists():
            os.truncate(file, 0)


def receiver(holder: int) -> int:
    return int(Path(f"/proc/{holder}/task/{holder}/children").read_text().split()[0])


def resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def theirs(program: Path, daemon: Daemon) -> float:
    (daemon.root / "said").write_bytes(b"")
    with started(daemon):
        assert listens(daemon.root / "log")
        return sent(program, [daemon.root / "log"], daemon.root / "said")


def rsyslog(folder: Path, packages: Packages) -> Daemon:
    """One input, the pid by the kernel, no limit: as ours."""
    (folder / "rsyslog").mkdir(exist_ok=True)
    root = folder / "rsyslog"
    daemon = logdaemons.rsyslog(root, packages)
    (root / "conf.rsyslog").write_text(
        'module(load="imuxsock" SysSock.Use="off")\n'
        f'input(type="imuxsock" Socket="{root}/log" HostName="domain1.com" '
        'RateLimit.Interval="0" UsePIDFromSystem="on")\n'
        f"*.* {root}/said\n"
    )
    return daemon


def inetutils(folder: Path, packages: Packages) -> Daemon:
    (folder / "inetutils").mkdir(exist_ok=True)
    return logdaemons.inetutils(folder / "inetutils", packages)


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bench/log.py: the server drops root, so it needs it")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        (folder / "packages").mkdir()
        packages = Packages(folder / "packages")
        program = folder / "sender"
        subprocess.run(
            ["gcc", "-O2", "-w", "-x", "c", "-o", program, "-"], input=SENDER.encode(), check=True
        )
        (folder / "root").mkdir(mode=0o755)
        (folder / "root" / ".virt").mkdir(mode=0o700)
        measure(folder, packages, program)


def measure(folder: Path, packages: Packages, program: Path) -> None:
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    sizes: list[tuple[int, int]] = []
    for _ in range(ROUNDS):
        root = folder / "root"
        rates["inetutils-syslogd"].append(theirs(program, inetutils(folder, packages)))
        rates["rsyslogd"].append(theirs(program, rsyslog(folder, packages)))
        rates["ours"].append(ours(program, root, 1)[0])
        rates["ours, no combined file"].append(ours(program, root, 1, "--no-combined")[0])
        rate, *size = ours(program, root, MANY)
        rates["ours, 1000 sockets"].append(rate)
        sizes.append((size[0], size[1]))
    report({name: statistics.median(found) for name, found in rates.items()}, max(sizes))


NAMES = (
    "inetutils-syslogd",
    "rsyslogd",
    "ours",
    "ours, no combined file",
    "ours, 1000 sockets",
)


def report(rates: dict[str, float], size: tuple[int, int]) -> None:
    first, second = rates["inetutils-syslogd"], rates["rsyslogd"]
    print(f"{'messages a second, none lost':<40}{'':>9}{'inetutils':>11}{'rsyslog':>9}")
    for name, rate in rates.items():
        print(f"{name:<40}{rate:9.0f}{rate / first:10.2f} x{rate / second:7.2f} x")
    print("targets: one socket 1.0 x inetutils and 1.1 x rsyslog, 1000 sockets 0.8 x that")
    print(f"1000 sockets beside one of ours: {rates['ours, 1000 sockets'] / rates['ours']:.2f} x")
    print(f"memory with 1000 sockets: receiver {size[0]} kB (target 30 MB), holder {size[1]} kB")


if __name__ == "__main__":
    main()
