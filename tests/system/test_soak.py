"""Churn in small: connections by the ten thousand, through reloads, upgrades and domains that come and go."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.calls import Virt
from tests.system.server import Server, serving, until

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
TOTAL = int(os.environ.get("VIRT_SOAK", "20000"))


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
    done = subprocess.run([client, *words], capture_output=True, text=True, check=True, timeout=120)
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


def descriptors(server: Server) -> list[int]:
    """How many each process has open."""
    pids = [server.process.pid, *server.children()]
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]


def resident(server: Server) -> list[int]:
    """How many kB each process has in memory."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in server.children()]
    return [int(text.partition("VmRSS:")[2].split()[0]) for text in texts]


def test_no_connection_is_lost_by_reloads_and_upgrades(
    virt: Virt, client: Path, tmp_path: Path
) -> None:
    """20 000 connections (VIRT_SOAK: more) while the server reloads, and is replaced by itself, again and again."""
    total = [0, 0]
    with serving(virt.root, tmp_path) as server:
        with under_load(client, total):
            for turn in range(1, 4):
                create(virt, tmp_path, 100 + turn)
                server.reload()
                server.signal(signal.SIGUSR2)
                server.wait_for("ready: ", turn + 1)
                virt.good("remove", "--yes", f"d{100 + turn}.test")
        assert total[0] >= TOTAL
        assert total[1] == 0
        served = sum(one["served"] for one in server.status()["served"])
        assert served == total[0]


def test_nothing_is_left_behind(virt: Virt, client: Path, tmp_path: Path) -> None:
    """After many connections: no zombie, no descriptor more, no count, no memory that grows."""
    with serving(virt.root, tmp_path) as server:
        load(client, 8, 2000)
        until(lambda: live(server) == 0, "all have ended")
        before, memory = descriptors(server), resident(server)
        for _ in range(5):
            load(client, 16, 2000)
        until(lambda: live(server) == 0, "all have ended")
        assert descriptors(server) == before
        assert all(now - then < 600 for now, then in zip(resident(server), memory, strict=True))
        for pid in server.children():
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            assert text == ""


def live(server: Server) -> int:
    return sum(one["live"] for one in server.status()["served"])
