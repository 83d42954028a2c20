"""`virt serve`: real domains on loopback addresses, and clients that connect to them."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.calls import Virt
from tests.system.handmade import probe
from tests.system.server import ask, connect, read, serving
from tests.system.test_jail import ESCAPE
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("as_root")

PORT = 9310
MANIFEST = """
profiles = []
binaries = ["sh", "cat", "hostname", "env", "id", "sleep", "chroot", "mkdir", "ls", "kill"]
directories = [{ path = "/etc" }, { path = "/run" }, { path = "/tmp", mode = 0o1777 }]
users = [{ name = "web", uid = 4711 }]
groups = [{ name = "www", gid = 4712 }]
"""
ETC = '\n[etc]\nskeleton = ["passwd", "group", "hostname"]\n'
HELLO = f"""
[[services]]
name = "hello"
port = {PORT}
program = "/bin/sh"
args = ["-c", "hostname; pwd; id -u; echo $PROTO $TCPLOCALIP $TCPLOCALPORT $TCPREMOTEIP"]
"""


def service(name: str, port: int, script: str, more: str = "") -> str:
    return (
        f'\n[[services]]\nname = "{name}"\nport = {port}\nprogram = "/bin/sh"\n'
        f"args = ['-c', '{script}']\n{more}\n"
    )


Create = Callable[[str, str, str], None]


@pytest.fixture
def create(virt: Virt, tmp_path: Path) -> Create:
    """Makes a domain with an address and some services."""

    def make(domain: str, address: str, services: str) -> None:
        manifest = tmp_path / f"{domain}.toml"
        manifest.write_text(MANIFEST + services + ETC)
        virt.create(domain, "-m", str(manifest), "--ip", address)

    return make


def test_each_address_answers_from_its_own_tree(virt: Virt, create: Create, tmp_path: Path) -> None:
    """Two domains on one port: each child has its own root, host name and UCSPI variables."""
    create("d1.test", "127.0.10.1", HELLO)
    create("d2.test", "127.0.10.2", HELLO)
    with serving(virt.root, tmp_path) as server:
        for number in (1, 2):
            address = f"127.0.10.{number}"
            assert ask(address, PORT) == (f"d{number}.test\n/\n0\nTCP {address} {PORT} 127.0.0.1\n")
        assert ask("127.0.10.3", PORT) == ""  # no domain has that address
        until(lambda: server.service("hello", "d1.test")["live"] == 0, "no live connection")
        told = server.status()
        counts = [(one["domain"], one["served"], one["failed"]) for one in told["served"]]
        assert counts == [("d1.test", 1, 0), ("d2.test", 1, 0)]
        assert told["unrouted"] == 1
        assert "FAIL: - no_route 127.0.10.3 domain=- from=127.0.0.1" in server.log.read_text()


def test_a_child_has_nothing_of_the_server(virt: Virt, create: Create, tmp_path: Path) -> None:
    """Descriptors 0 to 2, default signals, umask 022 and "/": whatever the server was started with."""
    create(
        "d1.test",
        "127.0.10.1",
        f'\n[[services]]\nname = "probe"\nport = {PORT}\nprogram = "/tmp/probe"\n',
    )
    probe(virt.tree("d1.test")).rename(virt.tree("d1.test") / "tmp/probe")
    passed = os.open("/dev/null", os.O_RDONLY)
    with serving(virt.root, tmp_path, pass_fds=(passed,), umask=0o077):
        assert ask("127.0.10.1", PORT) == (
            "argv [/tmp/probe]\nfds 0 1 2\nignored\nblocked\numask 0022\ncwd /\n"
        )
    os.close(passed)


def test_a_user_of_the_domain_gets_a_worker(virt: Virt, create: Create, tmp_path: Path) -> None:
    """The service runs as the tree's own user and groups, and its process can signal no one of the server."""
    more = 'user = "web"\ngroups = ["www"]\nnice = 5\nrlimits = ["files=77"]'
    create(
        "d1.test",
        "127.0.10.1",
        service("web", PORT, "id -u; id -g; id -G; ulimit -n", more)
        + HELLO.replace(str(PORT), str(PORT + 1))
        + service("bad", PORT + 2, "kill -9 1; kill -9 -1", more),
    )
    with serving(virt.root, tmp_path) as server:
        before = server.children()
        assert ask("127.0.10.1", PORT).split("\n")[:4] == ["4711", "4711", "4711 4712", "77"]
        ask("127.0.10.1", PORT + 2)  # kills all that it may: its own worker
        until(lambda: server.service("bad", "d1.test")["live"] == 0, "the worker is missed")
        assert ask("127.0.10.1", PORT).split("\n")[0] == "4711"
        assert ask("127.0.10.1", PORT + 1).split("\n")[0] == "d1.test"
        assert server.children() == before


def test_root_inside_cannot_signal_the_server(virt: Virt, create: Create, tmp_path: Path) -> None:
    """Root of a domain sees pid 1 of a namespace that ignores it, and nobody else's processes."""
    create(
        "d1.test",
        "127.0.10.1",
        service("evil", PORT, "read pid; kill -9 1; kill -15 1; kill -9 $pid; echo survived"),
    )
    with serving(virt.root, tmp_path) as server:
        before = server.children()
        told = ask("127.0.10.1", PORT, f"{server.process.pid}\n".encode())
        assert told.split("\n")[-2] == "survived"
        assert "survived" in ask("127.0.10.1", PORT, b"1\n")
        assert (server.children(), server.process.poll()) == (before, None)


def test_a_reload_takes_what_is_new_and_keeps_what_is_right(
    virt: Virt, create: Create, tmp_path: Path
) -> None:
    """HUP: a new domain is served and a removed one is not; a connection that is open stays open."""
    create("d1.test", "127.0.10.1", service("cat", PORT, "exec cat"))
    with serving(virt.root, tmp_path) as server:
        with connect("127.0.10.1", PORT) as early:
            early.sendall(b"before ")
            create("d2.test", "127.0.10.2", HELLO.replace(str(PORT), str(PORT + 1)))
            server.reload()
            assert ask("127.0.10.2", PORT + 1).startswith("d2.test\n")
            assert server.service("cat", "d1.test")["live"] == 1
            early.sendall(b"after")
            early.shutdown(socket.SHUT_WR)
            assert read(early) == "before after"
        with connect("127.0.10.1", PORT):  # held by who has listened for d2.test, too
            until(lambda: server.service("cat", "d1.test")["live"] == 1, "it is counted")
            virt.good("remove", "--yes", "d2.test")
            assert virt.good("serve", "--reload") == "reloaded: 1 service, 0 daemons\n"
            assert is_refused("127.0.10.2", PORT + 1)
        assert server.status()["trouble"] == ""
        assert ask("127.0.10.1", PORT, b"still here") == "still here"


def test_a_root_without_domains_is_told(tmp_path: Path) -> None:
    """Whether the folder is there or not: as `--check` says it, and nothing is made."""
    for root in (tmp_path, tmp_path / "none"):
        for words in ((), ("--check",)):
            done = Virt(root)("serve", "--log", "stderr", *words)
            assert (done.status, "there are no domains yet\nhint: " in done.err) == (68, True), (
                done.err
            )
    assert list(tmp_path.iterdir()) == []


def test_domains_come_and_go_without_a_reload(virt: Virt, create: Create, tmp_path: Path) -> None:
    """A running server takes in what is created or removed; a connection that is open stays open.

    Half a domain, and one that declares nothing, change nothing.
    """
    bad = service("bad", PORT + 2, "true", 'user = "ghost"')
    create("d1.test", "127.0.10.1", service("cat", PORT, "exec cat") + bad)
    with serving(virt.root, tmp_path) as server, connect("127.0.10.1", PORT) as early:
        early.sendall(b"before ")
        until(lambda: server.service("cat", "d1.test")["live"] == 1, "it is counted")
        spawners = server.children()
        create("d2.test", "127.0.10.2", "")
        (virt.root / ".virt" / "half").mkdir()
        (virt.root / ".virt" / "half").rename(virt.root / "half.test")
        create("d3.test", "127.0.10.3", HELLO.replace(str(PORT), str(PORT + 1)))
        until(lambda: not is_refused("127.0.10.3", PORT + 1), "d3.test is served")
        assert ask("127.0.10.3", PORT + 1).startswith("d3.test\n")
        until(lambda: server.status()["reloads"] == 1, "the reload is over")
        assert set(spawners) & set(server.children())  # one has the connection still
        virt.good("remove", "--yes", "d3.test")
        until(lambda: is_refused("127.0.10.3", PORT + 1), "d3.test is served no more")
        early.sendall(b"after")
        early.shutdown(socket.SHUT_WR)
        assert read(early) == "before after"
        (virt.root / "half.test").rmdir()
        assert server.log.read_text().count("bad of d1.test is not served: its user ghost") == 1


def is_refused(address: str, port: int) -> bool:
    try:
        connect(address, port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_wrong_set_changes_nothing(virt: Virt, create: Create, tmp_path: Path) -> None:
    """A port that another program has, or an inetd.conf that is wrong: the old set stays, whole.

    An upgrade at that moment keeps it too.
    """
    create("d1.test", "127.0.10.1", service("cat", PORT, "exec cat"))
    with socket.create_server(("", PORT + 1)), serving(virt.root, tmp_path) as server:
        create("d2.test", "127.0.10.2", HELLO.replace(str(PORT), str(PORT + 1)))
        server.wait_for("cannot reload, the old set stays")
        done, cause = virt("serve", "--reload"), f"cannot listen on tcp 0.0.0.0:{PORT + 1}"
        assert done.status == 78
        assert done.err.startswith(f"virt: cannot reload, the old set stays: {cause}")
        assert ask("127.0.10.1", PORT, b"as before") == "as before"
        said = server.status()
        # What was made may have been seen in two steps, and so been refused twice before.
        assert (said["reloads"], said["failed_reloads"] >= 2) == (0, True)
        assert said["trouble"].startswith(cause)
        server.signal(signal.SIGUSR2)
        server.wait_for("ready: ", 2)
        assert ask("127.0.10.1", PORT, b"as before") == "as before"
        again = server.status()
        assert (again["reloads"], again["failed_reloads"] > said["failed_reloads"]) == (0, True)


def test_a_tree_that_was_made_anew_is_found(virt: Virt, create: Create, tmp_path: Path) -> None:
    """Removed and created again while served by an inetd.conf: the first miss has the server look again."""
    create("d1.test", "127.0.10.1", HELLO)
    (tmp_path / "routes").write_text(f"127.0.10.1 {virt.tree('d1.test')}\n")
    words = f"virtuald {tmp_path}/routes /bin/sh -c hostname"
    conf = tmp_path / "inetd.conf"
    conf.write_text(f"{PORT} stream tcp nowait root /usr/sbin/virtuald {words}\n")
    with serving(virt.root, tmp_path, "--inetd", str(conf)) as server:
        assert ask("127.0.10.1", PORT) == "d1.test\n"
        virt.good("remove", "--yes", "d1.test")
        assert ask("127.0.10.1", PORT) == ""
        create("d1.test", "127.0.10.1", HELLO)
        ask("127.0.10.1", PORT)
        until(lambda: ask("127.0.10.1", PORT) == "d1.test\n", "the new tree")
        assert "cannot run /bin/sh: it, or its loader, is not in the tree" in server.log.read_text()


def test_a_tree_that_was_set_aside_is_served_no_more(
    virt: Virt, create: Create, tmp_path: Path
) -> None:
    """It is whole, so no program of it is missed: what comes would go into it, unseen by the new one."""
    create("d1.test", "127.0.10.1", HELLO)
    with serving(virt.root, tmp_path) as server:
        assert ask("127.0.10.1", PORT).startswith("d1.test\n")
        virt.good("remove", "--yes", "--keep", "d1.test")
        server.wait_for("reloaded: ")
        until(lambda: is_refused("127.0.10.1", PORT), "nobody answers")


def test_an_upgrade_keeps_listeners_and_connections(
    virt: Virt, create: Create, tmp_path: Path
) -> None:
    """USR2: the same process is a new program; counts and an open connection go on."""
    create("d1.test", "127.0.10.1", service("cat", PORT, "exec cat"))
    with serving(virt.root, tmp_path) as server:
        with connect("127.0.10.1", PORT) as early:
            early.sendall(b"before ")
            until(lambda: server.service("cat", "d1.test")["live"] == 1, "it is counted")
            server.signal(signal.SIGUSR2)
            server.wait_for("ready: ", 2)
            assert ask("127.0.10.1", PORT, b"new") == "new"
            early.sendall(b"after")
            early.shutdown(socket.SHUT_WR)
            assert read(early) == "before after"
        until(lambda: server.service("cat", "d1.test")["live"] == 0, "both have ended")
        assert server.service("cat", "d1.test")["served"] == 2


def test_term_drains(virt: Virt, create: Create, tmp_path: Path) -> None:
    """TERM: no new connection, but what is open may end; then the server does, with status 0."""
    create("d1.test", "127.0.10.1", service("cat", PORT, "exec cat"))
    with serving(virt.root, tmp_path) as server:
        with connect("127.0.10.1", PORT) as early:
            early.sendall(b"said")
            until(lambda: server.service("cat", "d1.test")["live"] == 1, "it is counted")
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            early.shutdown(socket.SHUT_WR)
            assert read(early) == "said"
        assert server.process.wait(PATIENCE) == 0


def test_limits_answer_at_once_and_are_told_once(
    virt: Virt, create: Create, tmp_path: Path
) -> None:
    """`instances` and `per_source` hold over all spawners; a refused client reads the end at once."""
    create(
        "d1.test",
        "127.0.10.1",
        service("few", PORT, "echo in; exec cat", "instances = 3")
        + service("each", PORT + 1, "echo in; exec cat", "per_source = 1")
        + service("here", PORT + 2, "echo in", 'only_from = ["127.0.0.2"]')
        + service("slow", PORT + 3, "echo in", 'cps = "2 3600"'),
    )
    with serving(virt.root, tmp_path, "--spawners", "3") as server:
        kept = [connect("127.0.10.1", PORT) for _ in range(3)]
        assert [one.recv(3) for one in kept] == [b"in\n"] * 3
        assert [ask("127.0.10.1", PORT) for _ in range(20)] == [""] * 20
        one, other = (connect("127.0.10.1", PORT + 1, f"127.0.0.{n}") for n in (1, 2))
        assert (one.recv(3), other.recv(3)) == (b"in\n", b"in\n")
        assert ask("127.0.10.1", PORT + 1, source="127.0.0.2") == ""
        assert ask("127.0.10.1", PORT + 1, source="127.0.0.3") == "in\n"
        assert ask("127.0.10.1", PORT + 2) == ""
        assert ask("127.0.10.1", PORT + 2, source="127.0.0.2") == "in\n"
        # In one second: on a slow machine a second may end in between, and two more come in.
        fast = [connect("127.0.10.1", PORT + 3) for _ in range(20)]
        served = sum(read(one) == "in\n" for one in fast)
        assert 2 <= served < 20
        assert ask("127.0.10.1", PORT + 3) == ""
        refused = {
            name: {
                key: count
                for key, count in server.service(name, "d1.test")["refused"].items()
                if count
            }
            for name in ("few", "each", "here", "slow")
        }
        assert refused == {
            "few": {"instances": 20},
            "each": {"per_source": 1},
            "here": {"address": 1},
            "slow": {"cps": 21 - served},
        }
        first = [line for line in server.lines() if "FAIL: few service_limit" in line]
        assert 1 <= len([line for line in first if "from=" in line]) <= 3  # one per spawner
        for connection in (*kept, *fast, one, other):
            connection.close()
        until(lambda: server.service("few", "d1.test")["live"] == 0, "all have gone")
        assert ask("127.0.10.1", PORT) == "in\n"


def test_udp_is_served_by_a_program_that_waits(virt: Virt, create: Create, tmp_path: Path) -> None:
    """A datagram starts the program with the socket; a second program is not started beside it."""
    script = "read line; hostname > /tmp/told; echo $PROTO $UDPLOCALIP >> /tmp/told; sleep 0.2"
    create("d1.test", "127.0.10.1", service("dgram", PORT, script, 'protocol = "udp"'))
    told = virt.tree("d1.test") / "tmp/told"
    with serving(virt.root, tmp_path) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        for number in (1, 2):
            client.sendto(b"\n", ("127.0.10.1", PORT))
            until(lambda: server.service("dgram", "d1.test")["served"] == number, "started")  # noqa: B023
            until(lambda: server.service("dgram", "d1.test")["live"] == 0, "ended")
        assert told.read_text() == "d1.test\nUDP 127.0.10.1\n"


def test_periodic_commands_run(virt: Virt, create: Create, tmp_path: Path) -> None:
    """`every`: again and again, inside the domain, as its user."""
    line = service("tick", 0, "id -u >> /tmp/ticks", 'every = "1s"\nuser = "web"')
    create("d1.test", "127.0.10.1", line.replace("port = 0\n", ""))
    ticks = virt.tree("d1.test") / "tmp/ticks"
    with serving(virt.root, tmp_path):
        until(lambda: ticks.exists() and ticks.read_text().startswith("4711\n4711\n"), "two runs")


def test_what_cannot_be_run_is_told_and_hurts_nobody(
    virt: Virt, create: Create, tmp_path: Path
) -> None:
    """A program that is missing, or a file that is none: the client reads the end, the log the cause."""
    create(
        "d1.test",
        "127.0.10.1",
        service("gone", PORT, "echo in") + HELLO.replace(str(PORT), str(PORT + 1)),
    )
    create("d2.test", "127.0.10.2", service("gone", PORT, "echo in"))
    (virt.tree("d1.test") / "bin/sh").resolve().unlink()
    with serving(virt.root, tmp_path) as server:
        assert [ask("127.0.10.1", PORT) for _ in range(5)] == [""] * 5
        assert ask("127.0.10.2", PORT) == "in\n"
        assert server.service("gone", "d1.test")["failed"] == 5
        assert server.log.read_text().count("gone d1.test: cannot run /bin/sh") <= 2


def test_a_spawner_that_dies_is_replaced(virt: Virt, create: Create, tmp_path: Path) -> None:
    """What it served dies with it, and nothing else; no count is left behind."""
    create("d1.test", "127.0.10.1", service("cat", PORT, "exec cat", "instances = 2"))
    with serving(virt.root, tmp_path) as server:
        with connect("127.0.10.1", PORT):
            until(lambda: server.service("cat", "d1.test")["live"] == 1, "it is counted")
            for pid in server.children():
                os.kill(pid, signal.SIGKILL)
            server.wait_for("a spawner ended")
        until(lambda: ask("127.0.10.1", PORT, b"again") == "again", "served again")
        until(lambda: server.service("cat", "d1.test")["live"] == 0, "nothing is counted")
        old = server.children()
        with connect("127.0.10.1", PORT), connect("127.0.10.1", PORT):
            until(lambda: server.service("cat", "d1.test")["live"] == 2, "they are counted")
            server.reload()
            for pid in set(old) & set(server.children()):
                os.kill(pid, signal.SIGKILL)
            until(lambda: server.service("cat", "d1.test")["live"] == 0, "nor of one that drains")
        assert ask("127.0.10.1", PORT, b"again") == "again"


def test_idle_it_sleeps(virt: Virt, create: Create, tmp_path: Path) -> None:
    """No process of the server is scheduled while nobody connects."""
    create("d1.test", "127.0.10.1", HELLO)
    with serving(virt.root, tmp_path) as server:
        ask("127.0.10.1", PORT)
        pids = [server.process.pid, *server.children()]
        before: dict[str, str] = {}

        def is_quiet() -> bool:
            time.sleep(1)
            now = {str(path): path.read_text() for pid in pids for path in switches(pid)}
            same = now == before
            before.clear()
            before.update(now)
            return same

        until(is_quiet, "a second without a wake-up")


def switches(pid: int) -> list[Path]:
    """Where the kernel counts how often each thread ran."""
    return sorted(Path(f"/proc/{pid}/task").glob("*/schedstat"))


def test_sockets_of_a_service_manager_are_taken(virt: Virt, create: Create, tmp_path: Path) -> None:
    """LISTEN_FDS: the listener that was passed is served, and READY=1 is told when it is."""
    create("d1.test", "127.0.10.1", HELLO)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        listener = socket.create_server(("", PORT))
        env = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "hello",
        }
        start = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[2], sys.argv[2:])"
        )
        number = listener.fileno()
        wrapper = [sys.executable, "-c", start, str(number)]
        with serving(virt.root, tmp_path, env=env, wrapper=wrapper, pass_fds=(number,)):
            listener.close()
            assert ask("127.0.10.1", PORT).startswith("d1.test\n")
            assert manager.recv(4096).startswith(b"READY=1\n")


def test_the_known_escapes_of_root_stay_inside(virt: Virt, create: Create, tmp_path: Path) -> None:
    """What gets out of a chroot, and what would by /proc, setns or a device node, is stopped."""
    marker = tmp_path / "marker"
    marker.touch()
    ways = ("chroot", "descriptor", "proc", "setns", "device")
    services = "".join(
        f'\n[[services]]\nname = "{way}"\nport = {PORT + number}\nprogram = "/tmp/escape"\n'
        f'args = ["{way}", "{marker}", "1"]\n'
        for number, way in enumerate(ways)
    )
    create("d1.test", "127.0.10.1", services)
    chrooted = services.partition('\n[[services]]\nname = "descriptor"')[0]
    plain = 'isolation = "chroot"'
    named = service("named", PORT + len(ways), "hostname", plain)
    create("d2.test", "127.0.10.2", f"{chrooted}{plain}\n{named}")
    for domain in ("d1.test", "d2.test"):
        target = virt.tree(domain) / "tmp/escape"
        words = ["gcc", "-static", "-w", "-x", "c", "-o", str(target), "-"]
        subprocess.run(words, input=ESCAPE, text=True, check=True)
    with serving(virt.root, tmp_path, "--spawners", "1"):
        told = [ask("127.0.10.1", PORT + number) for number in range(len(ways))]
        # Who served a domain before has come back whole.
        assert ask("127.0.10.2", PORT + len(ways)) == f"{socket.gethostname()}\n"
        assert [one.startswith("stopped at ") for one in told] == [True] * len(ways)
        assert ask("127.0.10.2", PORT) == "out\n"  # as docs/safety.md says of chroot


def test_a_full_table_of_descriptors_is_survived(
    virt: Virt, create: Create, tmp_path: Path
) -> None:
    """EMFILE: clients are answered by a close, the reason is logged; with room again all is as before."""
    create("d1.test", "127.0.10.1", HELLO)
    with serving(virt.root, tmp_path, "--spawners", "1") as server:
        (pid,) = server.children()
        assert ask("127.0.10.1", PORT).startswith("d1.test\n")
        until(lambda: server.service("hello", "d1.test")["live"] == 0, "it does nothing")
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        free = min(set(range(len(used) + 1)) - used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
        assert [ask("127.0.10.1", PORT) for _ in range(3)] == [""] * 3
        server.wait_for("no_room: Too many open files")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert ask("127.0.10.1", PORT).startswith("d1.test\n")
        assert server.children() == [pid]


def test_a_flood_of_one_domain_stops_at_its_limit(
    virt: Virt, create: Create, tmp_path: Path
) -> None:
    """Hundreds of clients that hold and drop connections of one domain; another's all get answers."""
    create("d1.test", "127.0.10.1", service("cat", PORT, "exec cat", "instances = 5"))
    create("d2.test", "127.0.10.2", service("cat", PORT, "exec cat"))
    with serving(virt.root, tmp_path) as server:
        flood = []
        for _ in range(300):
            flood.append(connect("127.0.10.1", PORT))
            if len(flood) % 10 == 0:
                assert ask("127.0.10.2", PORT, b"here") == "here"
        until(lambda: server.service("cat", "d1.test")["refused"]["instances"] == 295, "all came")
        assert server.service("cat", "d1.test")["live"] == 5
        for connection in flood:
            connection.close()
        until(lambda: server.service("cat", "d1.test")["live"] == 0, "the flood is over")
        assert ask("127.0.10.1", PORT, b"again") == "again"
