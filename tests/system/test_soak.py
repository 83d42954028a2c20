"""Churn in small: connections by the ten thousand, through reloads, upgrades and domains that come and go."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.calls import Virt
from tests.system.server import Server, ask, serving
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("as_root")

PORT = 9340
BENCH = Path(__file__).parents[2] / "bench"
MANIFEST = f"""
profiles = []
files = [{{ from = "SERVICE", to = "/bin/svc", mode = 0o755 }}]
[[services]]
name = "line"
port = {PORT}
program = "/bin/svc"
instances = 100000
per_source = 100000
"""
DOMAINS = 4
TOTAL = int(os.environ.get("VIRT_SOAK", "100000"))
TURNS = 6


@pytest.fixture
def client(virt: Virt, tmp_path: Path) -> Path:
    """Domains that answer a line with the same line, and the client of the benches."""
    for name in ("service", "client"):
        words = ["-static"] if name == "service" else ["-pthread"]
        source = BENCH / f"serve_{name}.c"
        subprocess.run(["gcc", "-O2", *words, "-o", tmp_path / name, source], check=True)
    (tmp_path / "m.toml").write_text(MANIFEST.replace("SERVICE", str(tmp_path / "service")))
    for number in range(DOMAINS):
        create(virt, tmp_path, number)
    return tmp_path / "client"


def create(virt: Virt, folder: Path, number: int) -> None:
    address = f"127.0.1.{1 + number}"
    virt.good("create", f"d{number}.test", "-m", str(folder / "m.toml"), "--ip", address)


def load(client: Path, clients: int, milliseconds: int) -> tuple[int, int]:
    """Connections made, and those that got no answer or a wrong one."""
    words = [str(PORT), str(DOMAINS), str(clients), str(milliseconds)]
    done = subprocess.run(
        [client, *words], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    told = done.stdout.split()
    return int(told[0]), int(told[4])


@contextmanager
def under_load(client: Path, total: list[int]) -> Iterator[None]:
    """Eight clients that connect until the block ends, and then until TOTAL were served."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set() or total[0] < TOTAL:
            made, wrong = load(client, 8, 500)
            total[0] += made
            total[1] += wrong

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_nothing_is_lost_and_nothing_left_behind(virt: Virt, client: Path, tmp_path: Path) -> None:
    """100 000 connections (VIRT_SOAK: more) while domains come and go, and the server reloads and is
    replaced by itself: each is answered; then no zombie, no descriptor, no mount, no memory more.
    """
    total = [0, 0]
    with serving(virt.root, tmp_path) as server:
        churn(virt, server, tmp_path, 0)
        load(client, 8, 2000)
        before, begun = quiet(server), served(server)
        with under_load(client, total):
            for turn in range(1, TURNS + 1):
                churn(virt, server, tmp_path, turn)
        assert total[0] >= TOTAL
        made, wrong = load(client, 8, 500)  # these spawners may not have served all domains yet
        assert total[1] + wrong == 0
        after = quiet(server)
        assert (
            served(server) - begun == total[0] + made
        )  # what the gone domains served went with them
    assert after.descriptors == before.descriptors
    assert after.mounts == before.mounts
    grown = zip(after.kilobytes, before.kilobytes, strict=True)
    assert all(now - then < 600 for now, then in grown), (before, after)


def churn(virt: Virt, server: Server, folder: Path, turn: int) -> None:
    """A domain comes, is served, and goes; every third time the server replaces itself."""
    number = 100 + turn
    create(virt, folder, number)
    server.reload()
    assert ask(f"127.0.1.{1 + number}", PORT, b"new\n") == "new\n"
    if turn % 3 == 0:
        ready = server.log.read_text().count("ready: ")
        server.signal(signal.SIGUSR2)
        server.wait_for("ready: ", ready + 1)
    virt.good("remove", "--yes", f"d{number}.test")
    server.reload()


@dataclass(frozen=True, slots=True)
class Quiet:
    """What a server that does nothing holds: each of its processes, the supervisor first."""

    descriptors: list[int]
    kilobytes: list[int]
    mounts: int


def quiet(server: Server) -> Quiet:
    """Once all programs have ended, and the spawners of earlier sets are gone."""
    until(lambda: live(server) == 0, "all have ended")
    until(lambda: len(server.children()) == len(os.sched_getaffinity(0)), "others have drained")
    pids = [server.process.pid, *server.children()]
    for pid in pids[1:]:
        assert processes.children(pid) == []
    return Quiet(
        [len(processes.open_files(pids[0])), *(len(others(pid)) for pid in pids[1:])],
        [processes.resident(pid) for pid in pids],
        len(Path(f"/proc/{pids[0]}/mountinfo").read_text().splitlines()),
    )


def others(spawner: int) -> list[str]:
    """What a spawner has open, without namespaces: it keeps those it entered last, and none after a reload,
    of which one comes by itself once a domain is gone.
    """
    found = processes.open_files(spawner)
    spaces = [one for one in found if one.startswith(("mnt:", "uts:", "ipc:"))]
    assert len(spaces) <= 3 + 3 * 16
    return [one for one in found if one not in spaces]


def served(server: Server) -> int:
    return sum(one["served"] for one in server.status()["served"])


def live(server: Server) -> int:
    return sum(one["live"] for one in server.status()["served"])
