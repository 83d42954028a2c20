"""The images and jobs of examples/: built, started and asked; what a job of CI would run is run."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.calls import VIRT, Virt
from tests.system.serving import free_ports
from tests.system.waiting import PATIENCE

EXAMPLES = Path(__file__).parents[2] / "examples"


def unpacked(virt: Virt, name: str, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """What umoci makes of the image of an example, and what its configuration says to run."""
    layout, bundle = tmp_path / f"{name}.oci", tmp_path / name
    virt.good("image", "-m", f"{EXAMPLES}/image-{name}.toml", "-o", str(layout))
    words = ["umoci", "unpack", "--image", f"{layout}:latest", str(bundle)]
    subprocess.run(words, check=True, capture_output=True)
    told = subprocess.check_output(["skopeo", "inspect", "--config", f"oci:{layout}:latest"])
    config: dict[str, Any] = json.loads(told)["config"]
    return bundle / "rootfs", config


def command(config: dict[str, Any]) -> list[str]:
    return [*config.get("Entrypoint", []), *config.get("Cmd", [])]


@contextmanager
def running(tree: Path, argv: list[str]) -> Iterator[None]:
    """The program of an image inside what was unpacked."""
    child = subprocess.Popen(["chroot", str(tree), *argv], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait(PATIENCE)


def connected(port: int) -> socket.socket:
    """A connection, as soon as somebody listens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"nobody listens on port {port}"
            time.sleep(0.05)


def test_the_file_server_serves_its_page(virt: Virt, tmp_path: Path) -> None:
    """What the image says to run, with another port, as the user that it names."""
    tree, config = unpacked(virt, "www", tmp_path)
    assert config["User"] == "1000:1000"
    port = free_ports(("one",))["one"]
    argv = [word.replace("8080", str(port)) for word in command(config)]
    with running(tree, argv), connected(port) as talk:
        talk.sendall(b"GET /index.txt HTTP/1.0\r\n\r\n")
        answer = talk.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith((tree / "srv/www/index.txt").read_bytes())


def test_the_script_runs_with_its_interpreter(virt: Virt, tmp_path: Path) -> None:
    """Modules with libraries of their own too: nothing of the host is seen."""
    tree, config = unpacked(virt, "python", tmp_path)
    done = subprocess.run(["chroot", str(tree), *command(config)], capture_output=True, check=True)
    assert json.loads(done.stdout)["tls"].startswith("OpenSSL")


def test_the_mail_relay_greets(virt: Virt, tmp_path: Path) -> None:
    """220, on a socket, by the daemon that the image starts."""
    tree, config = unpacked(virt, "mail", tmp_path)
    port = free_ports(("one",))["one"]
    argv = [str(port) if word == "25" else word for word in command(config)]
    with running(tree, argv), connected(port) as talk:
        assert talk.makefile("rb").readline().startswith(b"220 ")


def test_the_makefile_builds_what_changed(virt: Virt, tmp_path: Path) -> None:
    """Twice: the second time nothing is packed."""
    (tmp_path / "www.toml").write_text((EXAMPLES / "image-www.toml").read_text())
    make = ["make", "-sf", f"{EXAMPLES}/Makefile.image", f"VIRT={VIRT}", "check", "images"]
    told = [
        subprocess.check_output(make, cwd=tmp_path, env=virt.environment(), text=True) for _ in "ab"
    ]
    assert "as it was" not in told[0]
    assert "as it was" in told[1]


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_what_a_job_calls_succeeds(virt: Virt, tmp_path: Path, name: str) -> None:
    """Its own lines with virt, in their order, without a terminal, beside a manifest."""
    (tmp_path / "image.toml").write_text((EXAMPLES / "image-www.toml").read_text())
    text = (EXAMPLES / name).read_text()
    lines = re.findall(r"^[ -]*(virt .*)$", text, re.MULTILINE)
    assert len(lines) == 2
    env = virt.environment(
        {"PATH": f"{VIRT.parent}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": "1600000000", "NO_COLOR": "1"}
    )  # fmt: skip
    said = b""
    for line in lines:
        done = subprocess.run(
            line.split(), cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        assert b"\x1b" not in done.stdout + done.stderr
        said = done.stdout
    assert json.loads(said)["status"] == "ok"
    assert (tmp_path / "image.spdx.json").stat().st_size
