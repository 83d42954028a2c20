"""A root with small domains whose services are one program that tells how it runs."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.system.calls import Virt
from tests.system.server import Server, connect
from virttools.serve.admission import Bursts

SERVICE = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
static const char *env(const char *name) { const char *v = getenv(name); return v ? v : "-"; }
static void add(const char *word) {
    int fd = open("/ticks/all", O_WRONLY | O_CREAT | O_APPEND, 0666);
    fchmod(fd, 0666);
    write(fd, word, strlen(word));
    close(fd);
}
int main(int argc, char **argv) {
    char host[256] = "", buffer[4096];
    const char *what = argc > 1 ? argv[1] : "who";
    ssize_t got;
    if (!strcmp(what, "hold")) {
        write(1, "held\n", 5);
        while (read(0, buffer, sizeof buffer) > 0) ;
    } else if (!strcmp(what, "echo")) {
        while ((got = read(0, buffer, sizeof buffer)) > 0) write(1, buffer, got);
    } else if (!strcmp(what, "web")) {
        read(0, buffer, sizeof buffer);
        printf("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n%.3s", buffer);
    } else if (!strcmp(what, "tick")) {
        for (int fd = 0; fd < 3; fd++) fchmod(fd, 0);
        int fd = open("/ticks/now", O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0) add("twice\n");
        usleep(300000);
        unlink("/ticks/now");
        snprintf(buffer, sizeof buffer, "%s %d\n", argc > 2 ? argv[2] : "tick", (int)getuid());
        add(buffer);
        return argc > 3 ? atoi(argv[3]) : 0;
    } else {
        struct rlimit files;
        getrlimit(RLIMIT_NOFILE, &files);
        gethostname(host, sizeof host);
        printf("%s remote=%s local=%s uid=%d nice=%d files=%ld\n", host, env("TCPREMOTEIP"),
               env("TCPLOCALIP"), (int)getuid(), getpriority(PRIO_PROCESS, 0), (long)files.rlim_cur);
    }
    return 0;
}
"""


def program(folder: Path) -> Path:
    """Compile it, statically."""
    target = folder / "service"
    subprocess.run(
        ["gcc", "-static", "-O1", "-w", "-x", "c", "-o", str(target), "-"],
        input=SERVICE,
        text=True,
        check=True,
    )
    return target


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A port for each, below those that the kernel gives to clients (ip_local_port_range).

    Processes that test side by side choose from ranges of their own: a port is bound later.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6
    start = 20_000 + 2_000 * worker
    found: list[int] = []
    for port in range(start + os.getpid() % 1_000, start + 2_000):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            found.append(port)
        if len(found) == len(names):
            return dict(zip(names, found, strict=True))
    raise AssertionError("no free ports")


def domain(virt: Virt, name: str, address: str, service: Path, *services: str) -> None:
    """Build a domain whose /bin/service is that program; services: what each [[services]] says."""
    manifest = virt.root.parent / f"{name}.toml"
    tables = "".join(f'[[services]]\nprogram = "/bin/service"\n{text}\n' for text in services)
    manifest.write_text(
        f'profiles = []\naddresses = ["{address}"]\n'
        f'files = [{{ from = "{service}", to = "/bin/service", mode = 0o755 }}]\n'
        'users = [{ name = "bob", uid = 1234 }]\n'
        'directories = [{ path = "/ticks", mode = 0o777 }]\n'
        '[etc]\nskeleton = ["passwd", "group"]\n' + tables
    )
    virt.create(name, "-m", str(manifest))


def held(address: str, port: int, *, source: str = "") -> socket.socket | None:
    """A connection whose program runs until we leave; None where it was refused."""
    client = connect(address, port, source)
    try:
        if client.recv(5) == b"held\n":
            return client
    except ConnectionResetError:
        pass
    client.close()
    return None


@contextlib.contextmanager
def small_root(folder: Path) -> Iterator[tuple[Virt, Path]]:
    """A root in folder, and the program for its domains; the trees go at the end."""
    root = folder / "virtual"
    root.mkdir(mode=0o755)
    folder.chmod(0o755)
    virt = Virt(root)
    yield virt, program(folder)
    virt.sweep()
    shutil.rmtree(root, ignore_errors=True)


def refused(server: Server, service: str, domain: str) -> dict[str, int]:
    """How many were refused, by reason; reasons without any left out."""
    told = server.service(service, domain)["refused"]
    return {reason: count for reason, count in told.items() if count}


def live(server: Server, service: str, domain: str) -> int:
    return int(server.service(service, domain)["live"])


def most_lines(server: Server, begun: float) -> int:
    """How many lines of one kind a flood makes at most that began then: each spawner tells of a burst
    by two, and a burst is over when none of it came for `quiet` seconds, as on a slow machine may be.
    """
    bursts = 1 + (time.monotonic() - begun) / Bursts().quiet
    return int(2 * len(server.children()) * bursts)


def lines(server: Server, *words: str) -> list[str]:
    """The lines of the log that have all words."""
    return [line for line in server.lines() if all(word in line for word in words)]
