"""A super-server in a network of its own, with /virtual and /usr/bin/virtuald where the HOWTO has them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.fetching import fetched
from tests.system.handmade import REPOSITORY
from tests.system.waiting import PATIENCE

_HOST = """\
set -e
ip link set lo up
mount -t tmpfs -o mode=755 none /mnt
for path in /*; do
    name=${path#/}
    if [ -L "$path" ]; then cp -P "$path" "/mnt/$name"
    elif [ -d "$path" ] && [ "$name" != mnt ] && [ "$name" != virtual ]; then
        mkdir "/mnt/$name"
        mount --rbind "$path" "/mnt/$name"
    fi
done
mkdir /mnt/virtual
mount --bind "$1" /mnt/virtual
mount -t overlay none -o "lowerdir=$2:/usr/bin" /mnt/usr/bin
shift 2
echo up
exec chroot /mnt "$@" >/dev/null
"""
_CLIENT = f"""\
import json, socket, sys, time
PATIENCE = {PATIENCE}
kind, address, port, text = json.loads(sys.argv[1])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
end = time.monotonic() + PATIENCE
while True:
    try:
        with socket.socket(family, getattr(socket, kind)) as client:
            client.settimeout(PATIENCE)
            client.connect((address, port))
            client.send(text.encode()) if text else None
            if kind == "SOCK_DGRAM":
                told = client.recv(65536)
            else:
                told = b"".join(iter(lambda: client.recv(65536), b""))
        break
    except ConnectionRefusedError:
        if time.monotonic() > end:
            sys.exit("nobody listens")
        time.sleep(0.05)
sys.stdout.write(told.decode())
"""


@dataclass(frozen=True, slots=True)
class Host:
    """What runs it, by pid, and so where its network is."""

    pid: int

    def ask(self, address: str, port: int, text: str = "", kind: str = "SOCK_STREAM") -> str:
        """What a client reads there until the end."""
        asked = json.dumps([kind, address, port, text])
        done = subprocess.run(
            [
                "nsenter",
                f"--net=/proc/{self.pid}/ns/net",
                sys.executable,
                "-I",
                "-c",
                _CLIENT,
                asked,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running(virtual: Path, folder: Path, *command: str) -> Iterator[Host]:
    """Run a super-server that stays in the foreground; virtual is its /virtual."""
    added = folder / "bin"
    added.mkdir(exist_ok=True)
    if not (added / "virtuald").is_symlink():
        (added / "virtuald").symlink_to(REPOSITORY / "bin" / "virtuald")
    # unshare and sh become chroot, and that becomes the server: one pid for all
    words = ["unshare", "--mount", "--net", "sh", "-c", _HOST, "sh", str(virtual), str(added)]
    with (folder / "server.err").open("w") as errors:
        server = subprocess.Popen(
            [*words, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        assert server.stdout is not None
        with server.stdout as told:
            assert told.readline() == b"up\n", (folder / "server.err").read_text()
        yield Host(server.pid)
    finally:
        server.terminate()
        server.wait(PATIENCE)


def inetd() -> str:
    """openbsd-inetd."""
    found = shutil.which("inetd", path="/usr/sbin")
    if found is None:
        pytest.skip("needs openbsd-inetd")
    return found


def xinetd(folder: Path) -> str:
    """xinetd: installed, or out of its package, which Debian does not install beside another inetd."""
    found = shutil.which("xinetd", path="/usr/sbin")
    if found is not None:
        return found
    (package,) = fetched(folder, "xinetd")
    subprocess.run(["dpkg-deb", "-x", package, folder / "xinetd"], check=True)
    return str(folder / "xinetd" / "usr" / "sbin" / "xinetd")
