"""The profiles of daemons, two domains on one machine under `virt serve`: real programs, real clients."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.calls import VIRT, Virt
from tests.system.certificates import certificate
from tests.system.logdaemons import Packages
from tests.system.server import Server, serving
from tests.system.waiting import PATIENCE, until
from virttools.probe.crypt import hashed

pytestmark = pytest.mark.usefixtures("as_root")

ADDRESSES = {"d1.example": "192.0.2.1", "d2.example": "192.0.2.2"}
BASES = {"d1.example": 0, "d2.example": 200_000}
MAIL = {"d1.example": "imap-dovecot", "d2.example": "pop-dovecot"}

_UP = """\
mount --bind "$1" /etc/resolv.conf
shift
ip link set lo up
for address; do ip address add "$address/24" dev lo; done
echo up
exec cat
"""
FETCH = """\
import imaplib, json, poplib, ssl, sys
address, right, wrong = sys.argv[1:]
anybody = ssl._create_unverified_context()

def tell(work):
    try:
        return work()
    except (poplib.error_proto, imaplib.IMAP4.error, OSError) as error:
        return type(error).__name__

def login(client, password):
    client.user("bob")
    client.pass_(password)
    return client

def fetch():
    client = login(poplib.POP3(address, timeout=100), right)
    count, lines = client.stat()[0], client.retr(1)[1]
    client.dele(1)
    client.quit()
    client = login(poplib.POP3(address, timeout=100), right)
    left = client.stat()[0]
    client.quit()
    return [count, lines[-1].decode(), left]

def stls():
    client = poplib.POP3(address, timeout=100)
    client.stls(anybody)
    return login(client, right).quit()[:3].decode()

def imap():
    with imaplib.IMAP4(address, timeout=100) as client:
        return [client.login("bob", right)[0], client.create("Sent")[0]]

print(json.dumps({
    "fetched": tell(fetch),
    "stls": tell(stls),
    "pop3s": tell(lambda: login(poplib.POP3_SSL(address, timeout=100, context=anybody), right).quit()[:3].decode()),
    "imap": tell(imap),
    "wrong": tell(lambda: login(poplib.POP3(address, timeout=100), wrong)),
}))
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A network of its own, with both domains served in it, and a DNS that knows them."""

    virt: Virt
    server: Server
    inside: tuple[str, ...]
    """What runs a program in that network."""

    def run(self, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, *words],
            input=said,
            capture_output=True,
            text=True,
            check=False,
            timeout=5 * PATIENCE,
        )

    def pid(self, daemon: str, domain: str) -> int:
        found = {(one["daemon"], one["domain"]): one for one in self.server.status()["daemons"]}
        pid: int = found[daemon, domain]["pid"]
        return pid


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("daemons")
    folder.chmod(0o755)
    root = folder / "virtual"
    root.mkdir(mode=0o755)
    virt = Virt(root)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    words = ["unshare", "--net", "--mount", "sh", "-ec", _UP, "sh", str(folder / "resolv.conf")]
    with subprocess.Popen(
        [*words, *ADDRESSES.values()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as network:
        assert network.stdout is not None
        assert network.stdout.readline() == b"up\n"
        place = f"/proc/{network.pid}/ns"
        inside = ("nsenter", f"--net={place}/net", f"--mount={place}/mnt")
        for name in ADDRESSES:
            build(virt, folder, name)
        certify(virt.tree("d1.example") / "etc/dovecot/tls")
        with dns(inside), serving(root, folder, wrapper=list(inside)) as server:
            yield Machine(virt, server, inside)
        left = in_the_network_of(network.pid)
    virt.good("remove", "--yes", *ADDRESSES)
    assert left == ["cat"]


@contextmanager
def dns(inside: tuple[str, ...]) -> Iterator[None]:
    """A dnsmasq that knows the domains and nothing else."""
    words = ["/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]
    words += ["--no-hosts", "--pid-file=", "--listen-address=127.0.0.1", "--bind-interfaces"]
    words += ["--user=root", "--local=/example/"]
    words += [f"--host-record={name},{address}" for name, address in ADDRESSES.items()]
    with subprocess.Popen([*inside, *words], stdin=subprocess.DEVNULL) as process:
        asked = [*inside, "getent", "ahostsv4", *ADDRESSES]
        try:
            until(
                lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0,
                "an answer of the DNS",
            )
            yield
        finally:
            process.terminate()


def build(virt: Virt, folder: Path, name: str) -> None:
    """A domain of all daemons, on a host that seems to have dovecot: its pop3d excludes that of others."""
    manifest = folder / f"{name}.toml"
    manifest.write_text(
        f'profiles = ["www-nginx", "samba", "{MAIL[name]}"]\naddresses = ["{ADDRESSES[name]}"]\n'
        f"uid_base = {BASES[name]}\n"
        f'users = [{{ name = "bob", uid = 1234, password = "{hashed(f"of {name}", "salt")}" }}]\n'
    )
    dovecot = Packages(folder).get("dovecot-core", "dovecot-imapd", "dovecot-pop3d")
    mount = f"mount -t overlay -o lowerdir={dovecot}/usr:/usr none /usr"
    words = [str(VIRT), "create", "--yes", name, "-m", str(manifest)]
    subprocess.run(
        ["unshare", "--mount", "sh", "-euc", f'{mount}; exec "$@"', "sh", *words],
        env=virt.environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    page = virt.tree(name) / "var/www/html/page.html"
    page.write_text(f"<p>{name}</p>" * 500)
    box = virt.tree(name) / "var/mail/bob"  # as the mail servers make it
    box.write_text(f"From a@b.example Thu Jan  1 00:00:00 1970\nSubject: x\n\nto {name}\n")
    os.chown(box, BASES[name] + 1234, BASES[name] + 8)
    box.chmod(0o660)


def certify(folder: Path) -> None:
    """Put a key and a certificate there."""
    folder.mkdir(mode=0o700)
    for name, text in zip(("key.pem", "cert.pem"), certificate("d1.example"), strict=True):
        (folder / name).write_text(text)


def in_the_network_of(pid: int) -> list[str]:
    """The programs that run there."""
    network = os.stat(f"/proc/{pid}/ns/net")
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.path.samestat((place / "ns/net").stat(), network):
                found.append((place / "comm").read_text().strip())
        except OSError:
            continue  # it has just ended
    return found


def fetch(machine: Machine, name: str, *words: str) -> str:
    return machine.run("curl", "-s", *words, f"http://{name}/page.html").stdout


def answers(machine: Machine, name: str) -> None:
    until(lambda: f"<p>{name}</p>" in fetch(machine, name), f"the site of {name}")


def test_each_nginx_answers_from_its_own_tree(machine: Machine) -> None:
    """As browsers ask: connections that last, ranges, compression, and only what has changed."""
    for name in ADDRESSES:
        answers(machine, name)
        url = f"http://{name}/page.html"
        twice = ("-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n")
        done = machine.run("curl", "-s", *twice, url, url)
        assert done.stdout == "200 1\n200 0\n"
        assert fetch(machine, name, "-r", "3-12", "-w", " %{http_code}") == f"{name} 206"
        got = fetch(machine, name, "--compressed", "-D", "-", "-w", "%{size_download}")
        assert "Content-Encoding: gzip" in got
        assert f"<p>{name}</p>" * 500 in got
        assert int(got.rpartition(">")[2]) < 500
        tag = got.partition("ETag: ")[2].splitlines()[0]
        again = fetch(machine, name, "-H", f"If-None-Match: {tag}", "-w", "%{http_code}")
        assert again == "304"


def test_one_nginx_that_is_killed_comes_back(machine: Machine) -> None:
    """At once, with its port; the other domain's is not touched."""
    for name in ADDRESSES:
        answers(machine, name)
    with killed(machine, "nginx"):
        answers(machine, "d1.example")


@contextmanager
def killed(machine: Machine, daemon: str) -> Iterator[None]:
    """That of the first domain comes back, for the block; the other one is the same all the time."""
    before = {name: machine.pid(daemon, name) for name in ADDRESSES}
    os.kill(before["d1.example"], signal.SIGKILL)
    until(
        lambda: machine.pid(daemon, "d1.example") not in (0, before["d1.example"]), "started anew"
    )
    yield
    assert machine.pid(daemon, "d2.example") == before["d2.example"]


def test_each_dovecot_hands_out_its_own_mail(machine: Machine) -> None:
    """By the domain's own passwords only; TLS where there is a certificate, IMAP where the profile has it."""
    with ThreadPoolExecutor() as threads:
        one, two = threads.map(lambda name: mail(machine, name), ADDRESSES)
    assert one == {
        "fetched": [1, "to d1.example", 0],
        "stls": "+OK",
        "pop3s": "+OK",
        "imap": ["OK", "OK"],
        "wrong": "error_proto",
    }
    assert two == {
        "fetched": [1, "to d2.example", 0],
        "stls": "error_proto",
        "pop3s": "ConnectionRefusedError",
        "imap": "ConnectionRefusedError",
        "wrong": "error_proto",
    }
    fetched = "ok\tlogin by TLS, 1 messages, fetched one"
    assert tried(machine, "d1.example", "dovecot") == f"{fetched}\ndovecot\t143\t{fetched}"
    assert tried(machine, "d1.example", "imap") == fetched
    with away(machine.virt.tree("d1.example") / "usr/lib/dovecot/imap"):
        failed, missing = machine.virt("test", "d1.example", "imap").out.splitlines()
    assert failed.startswith("dovecot\t143\tfailed\t")
    assert "\t/usr/lib/dovecot/imap: comes by profiles/imap-dovecot.toml:" in missing
    for name, base in BASES.items():
        seen = (machine.virt.tree(name) / "var/mail/bob").stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (base + 1234, base + 8, 0o660)


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Nothing is there, for the block."""
    path.rename(path.with_name("away"))
    yield
    path.with_name("away").rename(path)


def mail(machine: Machine, name: str) -> dict[str, object]:
    """What bob's mail program is told, by his password and by that of the other bob."""
    other = next(domain for domain in ADDRESSES if domain != name)
    until(lambda: greets(machine, ADDRESSES[name]), f"dovecot of {name}")
    words = ("-I", "-c", FETCH, ADDRESSES[name], f"of {name}", f"of {other}")
    done = machine.run(sys.executable, *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def tried(machine: Machine, name: str, daemon: str, *words: str, password: str = "") -> str:
    """What `virt test` tells of a daemon, on a stage of its own while the real one runs."""
    env = {"VIRT_TEST_PASSWORD": password}
    return machine.virt("test", name, daemon, *words, env=env).out.split("\t", 2)[-1].rstrip("\n")


def greets(machine: Machine, address: str) -> bool:
    """Not whoever closes at once, as a program does that is just starting."""
    return "+OK" in machine.run("curl", "-sv", "-m", "5", f"pop3://{address}/").stderr


def test_one_dovecot_that_is_killed_comes_back(machine: Machine) -> None:
    """Though its pid file names a process that there is: itself."""
    until(lambda: all(greets(machine, one) for one in ADDRESSES.values()), "both dovecots")
    with killed(machine, "dovecot"):
        until(lambda: greets(machine, ADDRESSES["d1.example"]), "dovecot again")


def test_samba_keeps_files_passwords_and_sessions_apart(machine: Machine, tmp_path: Path) -> None:
    """Bob has a password in one domain, puts a file there and fetches it; the other knows neither."""
    virt, mine, theirs = machine.virt, *ADDRESSES
    subprocess.run(
        [VIRT, "exec", "--domain", mine, "--", "smbpasswd", "-s", "-a", "bob"],
        env=virt.environment(),
        input="secret\nsecret\n",
        text=True,
        check=True,
        capture_output=True,
    )
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(os.urandom(100_000))
    words = f"put {sent} upload; get upload {got}"
    until(lambda: smb(machine, mine, "share", words).returncode == 0, "samba answers")
    assert got.read_bytes() == sent.read_bytes()
    assert (virt.tree(mine) / "srv/share/upload").stat().st_uid == 1234
    assert not (virt.tree(theirs) / "srv/share/upload").exists()
    assert smb(machine, mine, "bob", "mkdir docs").returncode == 0
    assert (virt.tree(mine) / "home/bob/docs").is_dir()
    refused = smb(machine, theirs, "share", "ls")
    assert "NT_STATUS_LOGON_FAILURE" in refused.stdout + refused.stderr
    before = os.listdir(virt.tree(mine) / "srv/share")
    as_bob = ("smbd", "--user", "bob")
    told = tried(machine, mine, *as_bob, password="secret")
    assert told == "ok\tlogin, upload to share, removal"
    told = tried(machine, theirs, *as_bob, password="secret")
    assert told.startswith("failed\tlogin: ")
    assert "NT_STATUS_LOGON_FAILURE" in told
    assert os.listdir(virt.tree(mine) / "srv/share") == before


def smb(machine: Machine, name: str, share: str, command: str) -> subprocess.CompletedProcess[str]:
    options = ("-s", "/dev/null", "-U", "bob%secret", "-c", command)
    return machine.run("smbclient", f"//{name}/{share}", *options)
