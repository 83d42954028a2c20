"""A `virt serve` that one test runs, and clients of it."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.system import processes
from tests.system.calls import VIRT
from tests.system.waiting import PATIENCE, until
from virttools.cli import serve
from virttools.serve import asking
from virttools.serve.places import SOCKET


class Server:
    """A running server; log: the file that its standard error goes to."""

    def __init__(self, root: Path, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.root = root
        self.log = log
        self.process = process

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the log has said text so many times."""
        until(lambda: self.log.read_text().count(text) >= times, f"{text!r} in {self.log}")

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def reload(self) -> None:
        """Have it reload, and wait until that is over, and what it does by itself meanwhile."""
        done = self.log.read_text().count("reloaded: ")
        self.signal(signal.SIGHUP)
        self.wait_for("reloaded: ", done + 1)
        if (self.root / SOCKET).exists():  # else nobody can ask it
            until(lambda: not self._is_reloading(), "the reload is over")

    def _is_reloading(self) -> bool:
        told = asking.ask(str(self.root / SOCKET))
        return told is not None and serve._read_status(told).is_reloading

    def status(self) -> Any:  # noqa: ANN401  JSON
        """What `virt serve --status` tells."""
        done = subprocess.run(
            [VIRT, "--json", "serve", "--status"],
            env={"PATH": os.environ["PATH"], "VIRT_ROOT": str(self.root)},
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        return json.loads(done.stdout)["data"]

    def service(self, name: str, domain: str) -> Any:  # noqa: ANN401  JSON
        found = [
            one
            for one in self.status()["served"]
            if (one["service"], one["domain"]) == (name, domain)
        ]
        return found[0]

    def children(self) -> list[int]:
        """The spawners."""
        return processes.children(self.process.pid)


@contextmanager
def serving(
    root: Path,
    folder: Path,
    *words: str,
    **options: Any,  # noqa: ANN401  of Popen
) -> Iterator[Server]:
    """Run `virt serve` for a root until the block ends."""
    log = folder / f"serve-{time.monotonic_ns()}.log"
    wrapper = options.pop("wrapper", [])
    env = {"PATH": os.environ["PATH"], "VIRT_ROOT": str(root), **options.pop("env", {})}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*wrapper, VIRT, "serve", "--log", "stderr", "--drain", "5", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stderr=stream,
            **options,
        )
    server = Server(root, log, process)
    try:
        until(lambda: "ready: " in log.read_text() or process.poll() is not None, "ready")
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(address: str, port: int, said: bytes = b"", source: str = "") -> str:
    """Connect, say something, and read until the end."""
    with connect(address, port, source) as connection:
        try:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return ""  # refused, and closed before we spoke
        return read(connection)


def connect(address: str, port: int, source: str = "") -> socket.socket:
    origin = (source, 0) if source else None
    return socket.create_connection((address, port), PATIENCE, origin)


def read(connection: socket.socket) -> str:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts).decode()
