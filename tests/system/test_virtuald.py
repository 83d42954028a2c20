"""virtuald behind a real accept loop, with the arguments an inetd.conf line of the HOWTO gives."""

import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.system import people
from tests.system.handmade import REPOSITORY, probe, tree, virt
from tests.system.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("as_root")
VIRTUALD = REPOSITORY / "bin" / "virtuald"
MAIN = REPOSITORY / "virttools" / "__main__.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains, and a conf file as the HOWTO has it, with a tab and no last newline."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("virtual")
    for name in ("foo.bar.com", "bar.foo.com"):
        tree(root / name, "cat", "sh")
    probe(root / "foo.bar.com")
    (root / "conf.ftp").write_text(
        "# This is a comment and so are blank lines\n\n"
        f"127.0.10.1 {root}/foo.bar.com\n127.0.10.2\t {root}/bar.foo.com\n"
        f"127.0.10.4 {root}/none\n127.0.10.5 {root}/foo.bar.com\n::1 {root}/bar.foo.com"
    )
    return root


@pytest.fixture
def hostname(root: Path) -> list[str]:
    """The words after virtuald in inetd.conf, for a service that tells the domain."""
    return [str(root / "conf.ftp"), "cat", "/etc/hostname"]


def answer(
    words: list[str], address: str = "127.0.10.1", listen: str = "", program: Path = VIRTUALD
) -> tuple[str, int]:
    """What a client reads from one connection to address, and the status of its virtuald."""
    family = socket.AF_INET6 if ":" in (listen or address) else socket.AF_INET
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((listen or address, 0))
        listener.listen()
        with socket.create_connection((address, listener.getsockname()[1])) as client:
            served, _ = listener.accept()
            with served:
                fd = served.fileno()
                started = subprocess.Popen(
                    [str(program), *words],
                    stdin=fd,
                    stdout=fd,
                    stderr=fd,
                    env={"PATH": ""},
                )
            client.settimeout(PATIENCE)
            told = b"".join(iter(lambda: client.recv(4096), b""))
            return told.decode(), started.wait(PATIENCE)


@pytest.mark.parametrize(
    ("address", "listen", "domain"),
    [
        ("127.0.10.1", "", "foo.bar.com"),
        ("127.0.10.2", "", "bar.foo.com"),
        ("127.0.10.2", "0.0.0.0", "bar.foo.com"),
        ("127.0.10.2", "::", "bar.foo.com"),
        ("::1", "", "bar.foo.com"),
    ],
)
def test_the_local_address_chooses_the_tree(
    hostname: list[str], address: str, listen: str, domain: str
) -> None:
    """Each address answers from its own tree, also where IPv4 comes in on an IPv6 socket."""
    assert answer(hostname, address, listen) == (f"{domain}\n", 0)


def test_a_service_starts_clean(root: Path) -> None:
    """The service has the connection as 0, 1, 2 and nothing else, and its arguments as they stand."""
    told, status = answer([str(root / "conf.ftp"), "/bin/probe", "-l", "-a", "--check"])
    assert (told, status) == (
        "argv [/bin/probe] [-l] [-a] [--check]\nfds 0 1 2\nignored\nblocked\numask 0022\ncwd /\n",
        7,
    )


@pytest.mark.parametrize(
    ("address", "command", "status"),
    [
        ("127.0.10.3", "cat", 68),
        ("127.0.10.4", "cat", 78),
        ("127.0.10.1", "nothing", 127),
        ("127.0.10.1", "/etc/hostname", 126),
        ("127.0.10.1", "/bin/bad", 126),
    ],
)
def test_a_failure_has_its_status_and_the_client_reads_nothing(
    root: Path, address: str, command: str, status: int
) -> None:
    """No route, no tree, no program: the connection closes in silence."""
    bad = root / "foo.bar.com/bin/bad"
    bad.write_text("no first line\n")
    bad.chmod(0o755)
    assert answer([str(root / "conf.ftp"), command], address) == ("", status)


def test_a_wrong_conf_refuses_every_connection(tmp_path: Path) -> None:
    """A mistyped line must not send its domain to another tree: 78, and --check names each line."""
    conf = tmp_path / "conf.pop"
    conf.write_text(f"127.0.10.l {tmp_path}\n127.0.10.1\ndefault {tmp_path}\n")
    assert answer([str(conf), "cat"]) == ("", 78)
    checked = virt("virtuald", "--check", str(conf))
    assert (checked.returncode, checked.stdout) == (78, "")
    assert [line for line in checked.stderr.splitlines() if line.startswith(str(conf))] == [
        f"{conf}:1: not an address: '127.0.10.l'",
        f"{conf}:2: no folder after '127.0.10.1'",
    ]


def test_a_conf_or_tree_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """Whoever writes a conf file or replaces a tree would choose what root runs: 77."""
    domain = tree(tmp_path / "domain1.com", "cat")
    conf = tmp_path / "conf.pop"
    conf.write_text(f"default {domain}\n")
    words = [str(conf), "cat", "/etc/hostname"]
    assert answer(words) == ("domain1.com\n", 0)
    for path, mode in ((conf, 0o646), (domain, 0o775), (tmp_path, 0o777)):
        old = path.stat().st_mode
        path.chmod(mode)
        assert answer(words) == ("", 77)
        path.chmod(old)


def test_messages_go_to_syslog(root: Path) -> None:
    """The reason is sent to /dev/log as daemon.err; a mount namespace gives the test its own."""
    script = 'mount -t tmpfs none /mnt && mount --bind /mnt /dev && exec "$0" -I -c "$1" "$2" "$3"'
    receiver = (
        "import socket, subprocess, sys\n"
        "log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); log.bind('/dev/log')\n"
        "log.settimeout(30)\n"
        "listener = socket.create_server(('127.0.10.3', 0))\n"
        "client = socket.create_connection(listener.getsockname())\n"
        "served = listener.accept()[0]\n"
        "subprocess.run([sys.argv[1], sys.argv[2], 'cat'],\n"
        "    stdin=served, stdout=served, stderr=served)\n"
        "print(log.recv(4096).decode())\n"
    )
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            script,
            "/usr/bin/python3",
            receiver,
            VIRTUALD,
            root / "conf.ftp",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    head, _, text = done.stdout.partition(": ")
    assert head.startswith("<27>virtuald[")
    assert re.sub(":[0-9]+: ", ": ", text) == (
        f"cannot serve 127.0.10.3: {root}/conf.ftp has no route for it\n"
    )


def test_explain_and_check_answer_a_person(root: Path) -> None:
    """`--explain` prints the tree for an address, 68 where there is none; `--check` counts."""
    conf = str(root / "conf.ftp")
    explained = virt("virtuald", "--explain", "::ffff:127.0.10.2", conf)
    assert (explained.returncode, explained.stdout) == (0, f"{root}/bar.foo.com\n")
    assert virt("virtuald", "--explain", "10.0.0.1", conf).returncode == 68
    checked = virt("virtuald", "--check", conf)
    assert (checked.returncode, f"{root}/none: No such file" in checked.stderr) == (78, True)


def test_started_by_hand_it_says_what_it_wants(root: Path) -> None:
    """Without a connection there is no address: a sentence on stderr, status 2."""
    done = virt("virtuald", str(root / "conf.ftp"), "cat")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("virtuald: cannot tell the local address: ")
    assert virt("virtuald").returncode == 2


SPY = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
extern char **environ;
static int order(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
int main(int argc, char **argv) {
    char host[65], line[256];
    struct statvfs found;
    int count = 0;
    FILE *status;
    gethostname(host, sizeof host);
    printf("host %s\nuid %d gid %d groups %d\n", host, getuid(), getgid(), getgroups(0, NULL));
    while (environ[count]) count++;
    qsort(environ, count, sizeof *environ, order);
    for (int i = 0; i < count; i++) printf("%s\n", environ[i]);
    for (int i = 1; i < argc; i++)
        if (!statvfs(argv[i], &found)) printf("%s %s\n", argv[i], found.f_flag & ST_RDONLY ? "ro" : "rw");
    fflush(stdout);
    return 0;
}
"""


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A domain whose program tells host name, ids, environment and what it may write."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("spied")
    domain = tree(root / "domain1.com")
    (domain / "lib").mkdir(exist_ok=True)
    (domain / "etc/hostname").write_text("mail.domain1.com\n")
    (domain / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nbob:x:1001:1002::/home/bob:/bin/sh\n"
    )
    (domain / "etc/group").write_text("mail:x:8:bob\nbob:x:1002:\n")
    subprocess.run(
        ["gcc", "-static", "-x", "c", "-o", domain / "bin/spy", "-"], input=SPY.encode(), check=True
    )
    (root / "conf").write_text(f"127.0.10.0/24 {domain}\n[::1] {domain}\n")
    return root


def ports(told: str) -> str:
    """What was told, less the numbers of ports, which differ each time."""
    return re.sub("PORT=[0-9]+", "PORT=n", told)


@pytest.mark.parametrize(("address", "client"), [("127.0.10.1", "127.0.0.1"), ("::1", "::1")])
def test_a_service_knows_its_domain_and_its_connection(
    spied: Path, address: str, client: str
) -> None:
    """Host name of the tree, ids as inetd has them, UCSPI's variables, a clean environment, shared folders read-only."""
    words = [str(spied / "conf"), "/bin/spy", "/bin", "/lib", "/etc", "/tmp"]
    told, status = answer(words, address)
    groups = len(os.getgroups())
    expected = (
        f"host mail.domain1.com\nuid 0 gid 0 groups {groups}\nHOME=/root\nLOGNAME=root\n"
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPROTO=TCP\n"
        f"SHELL=/bin/sh\nTCPLOCALIP={address}\nTCPLOCALPORT=n\nTCPREMOTEIP={client}\n"
        "TCPREMOTEPORT=n\nUSER=root\n/bin ro\n/lib ro\n/etc rw\n/tmp rw\n"
    )
    assert (ports(told), status) == (expected, 0)


def test_mapped_addresses_are_told_as_ipv4(spied: Path) -> None:
    """A dual-stack listener of inetd changes nothing for the program."""
    told, _ = answer([str(spied / "conf"), "/bin/spy"], "127.0.10.1", listen="::")
    assert "\nTCPLOCALIP=127.0.10.1\n" in told
    assert "\nTCPREMOTEIP=127.0.0.1\n" in told


def test_a_user_of_the_tree_runs_it(spied: Path) -> None:
    """`--user` takes uid, gid and groups from the tree's own files; an unknown one is refused."""
    told, status = answer(["--user", "bob", str(spied / "conf"), "/bin/spy"])
    assert told.startswith("host mail.domain1.com\nuid 1001 gid 1002 groups 2\nHOME=/home/bob\n")
    assert status == 0
    assert answer(["-u", "nobody", str(spied / "conf"), "/bin/spy"]) == ("", 78)


def test_who_is_not_root_is_told_so(spied: Path) -> None:
    """The user column of inetd.conf must be root: 77, and nothing to the client."""
    listener = socket.create_server(("127.0.10.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        served, _ = listener.accept()
        with served:
            done = subprocess.run(
                [
                    "/usr/bin/python3",
                    "-I",
                    "-S",
                    str(MAIN),
                    "virtuald",
                    str(spied / "conf"),
                    "/bin/spy",
                ],
                stdin=served.fileno(),
                stdout=served.fileno(),
                stderr=subprocess.PIPE,
                preexec_fn=partial(people.become, 65534, 65534),
                cwd="/",
                env={},
                check=False,
            )
        assert (done.returncode, client.recv(100)) == (77, b"")
    assert done.stderr.decode().startswith("virtuald: cannot enter a tree: only root may; hint: ")


def test_a_route_may_ask_for_the_port(spied: Path) -> None:
    """`ADDRESS:PORT` serves that port, and no other."""
    (spied / "conf.port").write_text(f"127.0.10.1:1 {spied}/domain1.com\n")
    assert answer([str(spied / "conf.port"), "/bin/spy"]) == ("", 68)
    explained = virt("virtuald", "--explain", "127.0.10.1:1", str(spied / "conf.port"))
    assert (explained.returncode, explained.stdout) == (0, f"{spied}/domain1.com\n")
    assert virt("virtuald", "--explain", "127.0.10.1:2", str(spied / "conf.port")).returncode == 68


def test_the_host_itself_is_no_tree(spied: Path) -> None:
    """`default /` is refused unless allow_host says otherwise, however it is written."""
    for written in ("/", "//", "/./", f"{spied}/../../../../../.."):
        (spied / "conf.host").write_text(f"default {written}\n")
        assert answer([str(spied / "conf.host"), "/bin/true"]) == ("", 77)
    checked = virt("virtuald", "--check", str(spied / "conf.host"))
    assert "it is the host itself" in checked.stderr


def test_the_host_is_served_where_that_is_allowed(spied: Path) -> None:
    """With allow_host in virt.toml the program runs on the host, host name and all."""
    (spied / "conf.host").write_text(f"127.0.10.1 {spied}/domain1.com\ndefault /\n")
    settings = spied / "etc"
    (settings / "virttools").mkdir(parents=True)
    (settings / "virttools" / "virt.toml").write_text("allow_host = true\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from tests.system.test_virtuald import answer\n"
        "print(answer([sys.argv[2], '/bin/uname', '-n'], '127.0.10.9'))\n"
    )
    script = 'mount --bind "$0" /etc && exec "$@"'
    command = [sys.executable, "-c", code, str(REPOSITORY), str(spied / "conf.host")]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(settings), *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{(os.uname().nodename + chr(10), 0)!r}\n"


def datagram(words: list[str], address: str) -> tuple[int, int]:
    """The status of a virtuald that is given a socket with one datagram, and how many are left."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as served,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        served.bind((address, 0))
        client.sendto(b"hello", ("127.0.10.1", served.getsockname()[1]))
        done = subprocess.run(
            [str(VIRTUALD), *words], stdin=served.fileno(), check=False, capture_output=True
        )
        served.setblocking(False)
        try:
            served.recv(100)
        except BlockingIOError:
            return done.returncode, 0
        return done.returncode, 1


def test_a_refused_datagram_does_not_come_back(spied: Path, tmp_path: Path) -> None:
    """Else inetd would start us for it for ever; and a socket for all domains' datagrams is given to none."""
    both = tmp_path / "conf"
    both.write_text(f"127.0.10.1 {spied}/domain1.com\n127.0.10.2 {spied}\n")
    nobody = tmp_path / "none"
    nobody.write_text(f"127.0.10.2 {spied}/domain1.com\n")
    spy = "/bin/spy"
    assert [
        datagram([str(spied / "conf"), spy], "127.0.10.1"),
        datagram([str(spied / "conf"), spy], "0.0.0.0"),
        datagram([str(nobody), spy], "127.0.10.1"),
        datagram([str(nobody), spy], "0.0.0.0"),
        datagram([str(both), spy], "127.0.10.1"),
        datagram([str(both), spy], "0.0.0.0"),
    ] == [(0, 1), (0, 1), (68, 0), (68, 0), (0, 1), (78, 0)]


def test_a_program_that_waits_is_given_the_listener(spied: Path) -> None:
    """With `wait` of tcp the route is that of the listening address; a refused client is let go."""
    for conf, expected in (
        (spied / "conf", (0, "TCPLOCALIP=127.0.10.1\n")),
        (spied / "gone", (78, "")),
    ):
        with (
            socket.create_server(("127.0.10.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as client,
        ):
            done = subprocess.run(
                [str(VIRTUALD), str(conf), "/bin/spy"],
                stdin=listener.fileno(),
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == expected[0]
            assert expected[1] in done.stdout
            assert "REMOTE" not in done.stdout
            client.settimeout(PATIENCE)
            if expected[0]:
                assert client.recv(10) == b""


def test_connections_are_logged_only_on_request(spied: Path) -> None:
    """Nothing is said of what goes well, but with -v; standard error is no client's here."""
    with socket.create_server(("127.0.10.1", 0)) as listener:
        cases: dict[tuple[str, ...], str] = {
            (): "",
            ("-v",): r"virtuald: connection from 127\.0\.0\.1:\d+ to ",
        }
        for words, expected in cases.items():
            with socket.create_connection(listener.getsockname()):
                served, _ = listener.accept()
                with served:
                    done = subprocess.run(
                        [str(VIRTUALD), *words, str(spied / "conf"), "/bin/spy"],
                        stdin=served.fileno(),
                        stdout=served.fileno(),
                        stderr=subprocess.PIPE,
                        text=True,
                        check=True,
                    )
            assert re.match(expected, done.stderr)
            assert bool(done.stderr) == bool(words)


def test_a_bug_of_ours_is_no_answer_to_a_client(spied: Path, tmp_path: Path) -> None:
    """Where even loading fails, the client's connection closes in silence: 70."""
    package = tmp_path / "virttools"
    package.mkdir()
    for path in (REPOSITORY / "virttools").glob("*.py"):
        (package / path.name).write_bytes(path.read_bytes())
    (package / "serve").mkdir()
    (package / "serve" / "__init__.py").write_text("")
    broken = tmp_path / "virtuald"
    broken.write_text(
        f'#!/bin/sh\nexec /usr/bin/python3 -I -S {package}/__main__.py virt virtuald "$@"\n'
    )
    broken.chmod(0o755)
    assert answer([str(spied / "conf"), "/bin/spy"], program=broken) == ("", 70)
