"""The profiles for two domains on one machine, by `virt serve` and by inetd: real clients, real passwords."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system import superserver
from tests.system.calls import VIRT, Virt
from tests.system.certificates import certificate
from tests.system.waiting import PATIENCE
from virttools.probe.crypt import hashed

pytestmark = pytest.mark.usefixtures("as_root")

DOMAINS = {"d1.example": "127.0.10.1", "d2.example": "127.0.10.2"}
MORE = {"d1.example": ["127.0.10.11"], "d2.example": []}

CLIENT = """\
import ftplib, http.client, io, poplib, socket, subprocess, sys, time
address, domain, bobs, new = sys.argv[1:]

def reach(port):
    for _ in range(2400):
        try:
            return socket.create_connection((address, port), 100)
        except ConnectionRefusedError:
            time.sleep(0.05)
    sys.exit("nobody listens")

def curl(*words):
    done = subprocess.run(["curl", "-sS", "--max-time", "100", *words], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else f"curl: {done.returncode}"

def change(old, wanted):
    with reach(106) as connection, connection.makefile("rwb") as stream:
        said = [stream.readline()]
        for line in ("user bob", f"pass {old}", f"newpass {wanted}"):
            stream.write(line.encode() + b"\\r\\n")
            stream.flush()
            said.append(stream.readline())
        return said[-1][:3].decode()

reach(80).close()
web = http.client.HTTPConnection(address, timeout=100)
web.request("GET", "/")
assert f"<h1>{domain}</h1>" in web.getresponse().read().decode()
assert f"<h1>{domain}</h1>" in curl(f"http://{address}/")
with ftplib.FTP(address, "bob", bobs, timeout=100) as ftp:
    assert ftp.pwd() == "/"
    ftp.storbinary("STOR from-ftplib", io.BytesIO(domain.encode()))
assert curl("-u", f"bob:{bobs}", f"ftp://{address}/from-ftplib") == domain
assert "pub" in curl(f"ftp://{address}/")
assert curl("-T", "/etc/hostname", f"ftp://{address}/pub/x") == "curl: 25"
pop = poplib.POP3(address, timeout=100)
pop.user("bob"), pop.pass_(bobs)
assert pop.stat()[0] == 0
pop.quit()
assert change(bobs, new) == "200"
assert curl("-u", f"bob:{bobs}", f"pop3://{address}/") == "curl: 67"
assert "curl" not in curl("-u", f"bob:{new}", f"pop3://{address}/")
print("all", domain)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """Two domains, each with its own bob."""
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    virt = Virt(folder)
    for number, (domain, address) in enumerate(DOMAINS.items()):
        manifest = folder.parent / f"{folder.name}-{domain}.toml"
        manifest.write_text(
            'profiles = ["ftp", "pop", "www", "poppass"]\n'
            f"addresses = {json.dumps([address, *MORE[domain]])}\nuid_base = {100_000 * number}\n"
            f'users = [{{ name = "bob", uid = 1000, password = "{hashed(f"old {domain}", "salt")}" }}]\n'
        )
        virt.create(domain, "-m", str(manifest))
    virt.good("services", "sync")
    yield virt
    virt.good("remove", "--yes", *DOMAINS)


def inside(
    server: "subprocess.Popen[bytes]", *words: str, typed: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a client in the server's network."""
    return subprocess.run(
        ["nsenter", f"--net=/proc/{server.pid}/ns/net", *words],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * PATIENCE,
    )


@pytest.mark.parametrize("kind", ["serve", "inetd"])
def test_two_bobs_are_served(two: Virt, tmp_path: Path, kind: str) -> None:
    """Web, files, mail and passwords of two domains; what one bob changes, the other has not changed."""
    if kind == "serve":
        command = [str(VIRT), "serve", "--log", "stderr"]
        old, new = "old", "newer"
    else:
        conf = tmp_path / "inetd.conf"
        conf.write_text(two.good("render", "inetd"))
        command = [superserver.inetd(), "-i", str(conf)]
        old, new = "newer", "newest"
    before = (two.tree("d2.example") / "etc/shadow").read_bytes()
    with running(two, tmp_path, command) as server:
        for domain, address in DOMAINS.items():
            words = (address, domain, f"{old} {domain}", f"{new} {domain}")
            done = inside(server, sys.executable, "-I", "-c", CLIENT, *words)
            log = (tmp_path / "server.log").read_text()
            assert done.stdout == f"all {domain}\n", done.stderr + log
            if domain == "d1.example":
                assert (two.tree("d2.example") / "etc/shadow").read_bytes() == before
        refused(two, server, f"{new} d1.example", f"{new} d2.example")
        if kind == "serve":
            asked_live(two, server, f"{new} d1.example", f"{new} d2.example")
        encrypted(two, server, f"{new} d1.example")


def refused(two: Virt, server: "subprocess.Popen[bytes]", first: str, second: str) -> None:
    """The other domain's password is none here, a missing home is said, and the neighbour is none the worse."""
    listing = ("curl", "-sS", "--max-time", "100")
    wrong = inside(server, *listing, "-u", f"bob:{second}", "ftp://127.0.10.1/")
    assert wrong.returncode == 67, wrong
    home = two.tree("d2.example") / "home/bob"
    home.rename(home.with_name("away"))
    try:
        lost = inside(server, *listing, "-v", "-u", f"bob:{second}", "ftp://127.0.10.2/")
        assert "500 OOPS: cannot change directory:/home/bob" in lost.stderr
        fine = inside(server, *listing, "-u", f"bob:{first}", "ftp://127.0.10.1/")
        assert "from-ftplib" in fine.stdout, fine
        (found,) = live(two, server, "d2.example", second, "ftp")
        assert "500 OOPS" in found["told"]
        assert found["causes"][0]["what"] == "bob has no home directory /home/bob"
        assert "-- install -d -m 0750" in found["causes"][0]["mend"]
    finally:
        home.with_name("away").rename(home)


def asked_live(two: Virt, server: "subprocess.Popen[bytes]", first: str, second: str) -> None:
    """`virt test --live` is a client of the server that runs; the other bob's password opens nothing."""
    found = live(two, server, "d1.example", first)
    assert all(one["ok"] and one["live"] for one in found)
    assert {one["service"]: one["told"] for one in found} == {
        "ftp": "login, upload, download, anonymous, at each of 2 addresses",
        "pop3": "login, 0 messages, at each of 2 addresses",
        "http": "GET /: 200, 204 bytes, at each of 2 addresses",
        "poppassd": "login, at each of 2 addresses",
    }
    names = os.listdir(two.tree("d1.example") / "home/bob")
    assert [name for name in names if name.startswith("virt-test")] == []
    (found,) = live(two, server, "d1.example", second, "pop3")
    assert (found["ok"], found["told"][:6]) == (False, "login:")
    assert found["causes"][0]["what"] == "the password is not that of bob in d1.example"


def encrypted(two: Virt, server: "subprocess.Popen[bytes]", password: str) -> None:
    """With a certificate, and without the # that vsftpd.conf names: TLS for bob, and nothing else."""
    etc = two.tree("d1.example") / "etc"
    conf = (etc / "vsftpd.conf").read_text()
    key = etc / "vsftpd.pem"
    key.write_text("".join(certificate("d1.example")))
    curl = ("curl", "-sS", "--max-time", "100", "-u", f"bob:{password}")
    try:
        uncommented = [
            line.removeprefix("#") if "=" in line else line for line in conf.splitlines()
        ]
        (etc / "vsftpd.conf").write_text("\n".join(uncommented) + "\n")
        for most in ("1.2", "1.3"):
            tls = ("--ssl-reqd", "--insecure", "--tls-max", most)
            sent = inside(server, *curl, *tls, "-T", "-", "ftp://127.0.10.1/by-tls", typed=most)
            assert sent.returncode == 0, sent.stderr
            got = inside(server, *curl, *tls, "ftp://127.0.10.1/by-tls")
            assert got.stdout == most, got.stderr
        assert inside(server, *curl, "ftp://127.0.10.1/by-tls").returncode == 67
        assert inside(server, "curl", "-sS", "ftp://127.0.10.1/").returncode == 0  # anonymous
        (found,) = live(two, server, "d1.example", password, "ftp")
        assert found["told"].startswith("login by TLS, upload, download, anonymous")
    finally:
        (etc / "vsftpd.conf").write_text(conf)
        key.unlink()


def live(
    two: Virt, server: "subprocess.Popen[bytes]", domain: str, password: str, *services: str
) -> Any:  # noqa: ANN401  JSON
    words = ["--json", "test", domain, *services, "--live", "--user", "bob", "--password-file", "-"]
    done = inside(server, str(VIRT), "--root", str(two.root), *words, typed=f"{password}\n")
    found = json.loads(done.stdout)["data"]["services"]
    assert done.returncode == (0 if all(one["ok"] for one in found) else 1)
    return found


_UP = 'ip link set lo up && echo up && log=$1 && shift && exec "$@" >>"$log"'


@contextmanager
def running(two: Virt, folder: Path, command: list[str]) -> "Iterator[subprocess.Popen[bytes]]":
    """A server in a network of its own."""
    words = ["unshare", "--net", "sh", "-c", _UP, "sh", str(folder / "server.log"), *command]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            words,
            env={"PATH": os.environ["PATH"], "VIRT_ROOT": str(two.root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert server.stdout is not None
        with server.stdout as told:
            assert told.readline() == b"up\n", (folder / "server.log").read_text()
        yield server
    finally:
        server.terminate()
        server.wait(PATIENCE)
