"""One inetd.conf under openbsd-inetd and under `virt serve --inetd`: the same answers."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.handmade import REPOSITORY, tree, virt
from tests.system.server import Server, connect, read, serving
from tests.system.serving import free_ports, lines, program, refused
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("as_root")
ONE, TWO, NOWHERE = "127.0.10.1", "127.0.10.2", "127.0.10.3"
VIRTUALD = REPOSITORY / "bin" / "virtuald"
PORTS = free_ports(
    ("domain", "tcpd", "who", "nobody", "only", "datagram", "waiting", "limited", "missing", "six")
)
INTERNAL = ("echo", "discard", "daytime", "time", "chargen")

Answers = dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two trees, their routes file, and an inetd.conf of every kind of line."""
    folder = tmp_path_factory.mktemp("inetd")
    folder.chmod(0o755)
    service = program(folder)
    for name in ("one.test", "two.test"):
        shutil.copy(service, tree(folder / name, "cat", "head") / "bin/service")
    (folder / "conf.all").write_text(f"{ONE} {folder}/one.test\n{TWO} {folder}/two.test\n")
    virtuald = f"{VIRTUALD} virtuald {folder}/conf.all"
    (folder / "inetd.conf").write_text(
        f"""# services of the domains
{PORTS["domain"]} stream tcp nowait root {virtuald} cat /etc/hostname
{PORTS["tcpd"]} stream tcp nowait root /usr/sbin/tcpd {VIRTUALD} {folder}/conf.all /bin/cat /etc/hostname
{PORTS["who"]} stream tcp4 nowait.9999 root {virtuald}
  /bin/service echo
{PORTS["missing"]} stream tcp nowait root {virtuald} /bin/none
# services of the host
{PORTS["nobody"]} stream tcp nowait nobody /usr/bin/id id
{ONE}:{PORTS["only"]} stream tcp nowait nobody.daemon /usr/bin/id
{PORTS["six"]} stream tcp6 nowait root /usr/bin/basename basename a/six
{PORTS["datagram"]} dgram udp4 wait root /usr/bin/python3 python3 -I {folder}/answer.py
{PORTS["waiting"]} stream tcp4 wait root /usr/bin/python3 python3 -I {folder}/answer.py
{PORTS["limited"]} stream tcp4 nowait.3 root /usr/bin/basename basename a/b
# inside
"""
        + "".join(f"{ONE}:{name} stream tcp nowait root internal\n" for name in INTERNAL)
        + f"{ONE}:echo dgram udp wait root internal\n"
    )
    (folder / "answer.py").write_text(
        "import socket\n"
        "here = socket.socket(fileno=0)\n"
        "if here.type == socket.SOCK_DGRAM:\n"
        "    said, who = here.recvfrom(100)\n"
        "    here.sendto(said.upper(), who)\n"
        "else:\n"
        "    client, _ = here.accept()\n"
        "    client.sendall(client.recv(100).upper())\n"
    )
    return folder


@contextmanager
def inetd(place: Path) -> Iterator[None]:
    """The real one, in the foreground."""
    found = shutil.which("inetd")
    if found is None:
        pytest.skip("no inetd")
    process = subprocess.Popen([found, "-i", str(place / "inetd.conf")], stdin=subprocess.DEVNULL)
    try:
        until(lambda: is_listening(PORTS["limited"]) and is_listening(19), "inetd listens")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def served(place: Path, *words: str) -> Iterator[Server]:
    root = place / "virtual"
    (root / ".virt").mkdir(mode=0o700, parents=True, exist_ok=True)
    with serving(root, place, "--inetd", str(place / "inetd.conf"), *words) as server:
        yield server


def is_listening(port: int) -> bool:
    """Told by the kernel (proc(5)): to connect would count as a call."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(words[1].endswith(f":{port:04X}") and words[3] == "0A" for words in lines[1:])


def ask(address: str, port: int, said: bytes = b"", most: int = 1 << 20) -> str:
    try:
        connection = connect(address, port)
    except ConnectionRefusedError:
        return "refused"
    with connection:
        connection.sendall(said)
        if not said:
            return read(connection)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while len(found) < most and (part := connection.recv(4096)):
            found += part
        return found[:most].decode()


def datagram(port: int, said: bytes, wait: float = PATIENCE) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(wait)
        client.sendto(said, (ONE, port))
        try:
            return client.recv(100).decode()
        except TimeoutError:
            return "silence"


def answers() -> Answers:
    """What each service says, by its name and address."""
    found = {
        f"{name} {address}": ask(address, PORTS[name])
        for name in ("domain", "tcpd", "missing", "nobody", "only")
        for address in (ONE, TWO, NOWHERE)
    }
    found["who"] = ask(TWO, PORTS["who"], b"x" * 100_000)
    found["six"] = ask("::1", PORTS["six"])
    found["four of six"] = ask(ONE, PORTS["six"])
    found["six of four"] = ask("::1", PORTS["who"])
    for number in range(2):
        found[f"datagram {number}"] = datagram(PORTS["datagram"], b"hello %d" % number)
        found[f"waiting {number}"] = ask(ONE, PORTS["waiting"], b"hello %d" % number)
    found["limited"] = " ".join(ask(ONE, PORTS["limited"]).strip() for _ in range(2))
    found["echo"] = ask(ONE, 7, b"hello")
    found["discard"] = ask(ONE, 9, b"hello")
    found["daytime"] = str(len(ask(ONE, 13)))
    with connect(ONE, 37) as client:
        found["time"] = str(len(client.recv(100)))
    found["chargen"] = ask(ONE, 19, b"go", most=5000)
    found["echo from loopback"] = datagram(7, b"hello", wait=1)
    return found


def test_the_same_inetd_conf_gives_the_same_answers(place: Path) -> None:
    """Lines of virtuald, of other programs, of every user, that wait or not, and internal ones."""
    with inetd(place):
        theirs = answers()
    with served(place):
        ours = answers()
    assert ours == theirs
    assert theirs[f"domain {ONE}"] == "one.test\n"
    assert theirs[f"tcpd {TWO}"] == "two.test\n"
    assert theirs[f"domain {NOWHERE}"] == theirs[f"missing {ONE}"] == ""
    assert theirs[f"only {TWO}"] == "refused"
    assert theirs[f"only {ONE}"].startswith("uid=65534(nobody) gid=1(daemon)")
    assert theirs["datagram 1"] == "HELLO 1"
    assert theirs["who"] == "x" * 100_000
    assert theirs["chargen"].startswith(" !\"#$%&'()*+")
    assert theirs["echo from loopback"] == "silence"


def test_a_service_called_too_often_rests_as_under_inetd(place: Path) -> None:
    """`nowait.3` is three calls a minute as inetd(8) says (its count is one less), then ten minutes of none."""
    with inetd(place):
        theirs = [ask(ONE, PORTS["limited"]) for _ in range(6)]
    with served(place) as server:
        ours = [ask(ONE, PORTS["limited"]) for _ in range(6)]
        assert refused(server, str(PORTS["limited"]) + "/tcp4", "") == {"cps": 3}
        assert lines(server, "FAIL:", "cps_limit")
    assert ours == ["b\n"] * 3 + [""] * 3
    assert theirs[:2] == ["b\n"] * 2
    assert set(theirs[2:]) <= {"", "refused"}


def test_every_wrong_line_is_told_before_anything_is_served(place: Path, tmp_path: Path) -> None:
    """`--check` and the start itself name each line, with status 78."""
    conf = tmp_path / "inetd.conf"
    conf.write_text(
        f"{PORTS['who']} stream tcp wai root /bin/cat cat\nnosuch stream tcp nowait root /x\n"
    )
    for words in (["--check"], []):
        done = virt("serve", "--inetd", str(conf), "--log", "stderr", *words, root=tmp_path)
        assert done.returncode == 78
        assert f"{conf}:1: neither `wait` nor `nowait`: 'wai'" in done.stderr
        assert f"{conf}:2: unknown service: nosuch/tcp" in done.stderr


def test_a_reload_takes_the_new_lines_and_keeps_the_old_ones_when_they_are_wrong(
    place: Path, tmp_path: Path
) -> None:
    """HUP, as for inetd; a line that is wrong leaves all as it was."""
    conf = tmp_path / "inetd.conf"
    line = "stream tcp4 nowait root /usr/bin/basename basename"
    conf.write_text(f"{PORTS['who']} {line} first\n")
    root = tmp_path / "virtual"
    root.mkdir()
    with serving(root, tmp_path, "--inetd", str(conf)) as server:
        assert ask(ONE, PORTS["who"]) == "first\n"
        conf.write_text(f"{PORTS['who']} {line} second\n{PORTS['domain']} {line} new\n")
        server.reload()
        assert (ask(ONE, PORTS["who"]), ask(ONE, PORTS["domain"])) == ("second\n", "new\n")
        conf.write_text(f"{PORTS['who']} {line} third\n{PORTS['domain']} strem\n")
        server.signal(1)
        server.wait_for(f"{conf}:2: ")
        assert (ask(ONE, PORTS["who"]), ask(ONE, PORTS["domain"])) == ("second\n", "new\n")
