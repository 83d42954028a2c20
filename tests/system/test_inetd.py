"""The HOWTO's own inetd.conf line, and what `virt render` prints, run by the real super-servers."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import superserver
from tests.system.calls import Virt
from tests.system.superserver import Host
from tests.system.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("as_root")

# HOWTO, section on FTP; only the program is ours
LINE = "ftp stream tcp nowait root /usr/bin/virtuald virtuald /virtual/conf.ftp wu.ftpd -l -a\n"

SERVICE = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char host[65], name[256] = "", text[4096], *at = text;
    FILE *file = fopen("/etc/hostname", "r");
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    const char *names[] = {"PROTO", "TCPLOCALIP", "TCPREMOTEIP", "UDPLOCALIP", "UDPREMOTEIP", "USER"};
    if (file && fgets(name, sizeof name, file)) name[strcspn(name, "\n")] = 0;
    gethostname(host, sizeof host);
    at += sprintf(at, "%s %s uid %d", name, host, getuid());
    for (int i = 1; i < argc; i++) at += sprintf(at, " [%s]", argv[i]);
    for (int i = 0; i < 6; i++) if (getenv(names[i])) at += sprintf(at, " %s=%s", names[i], getenv(names[i]));
    at += sprintf(at, "\n");
    if (getenv("UDPLOCALIP")) {
        char got[64];
        recvfrom(0, got, sizeof got, 0, (struct sockaddr *)&peer, &size);
        return sendto(0, text, at - text, 0, (struct sockaddr *)&peer, size) < 0;
    }
    return write(1, text, at - text) < 0;
}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that says where it is, static, so that a tree needs nothing else."""
    program = tmp_path_factory.mktemp("service") / "wu.ftpd"
    subprocess.run(
        ["gcc", "-static", "-O1", "-x", "c", "-o", program, "-"], input=SERVICE.encode(), check=True
    )
    return program


@pytest.fixture(scope="module")
def howto(tmp_path_factory: pytest.TempPathFactory, service: Path) -> Path:
    """A root as the HOWTO has it: two trees and a conf file, made by hand."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("virtual")
    root.chmod(0o755)
    for name in ("domain1.com", "domain2.com"):
        (root / name / "etc").mkdir(parents=True)
        (root / name / "usr" / "sbin").mkdir(parents=True)
        (root / name / "etc" / "hostname").write_text(f"{name}\n")
        (root / name / "etc" / "passwd").write_text("bob:x:1001:1001::/:/bin/sh\n")
        shutil.copy(service, root / name / "usr" / "sbin" / "wu.ftpd")
    (root / "conf.ftp").write_text(
        "127.0.10.1 /virtual/domain1.com\n127.0.10.2 /virtual/domain2.com"
    )
    return root


def told(domain: str, address: str, client: str = "127.0.0.1", uid: int = 0) -> str:
    user = "root" if uid == 0 else "bob"
    return (
        f"{domain} {domain} uid {uid} [-l] [-a] PROTO=TCP TCPLOCALIP={address}"
        f" TCPREMOTEIP={client} USER={user}\n"
    )


@pytest.fixture
def inetd(howto: Path, tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "inetd.conf").write_text(LINE)
    command = (superserver.inetd(), "-i", "-R", "0", str(tmp_path / "inetd.conf"))
    with superserver.running(howto, tmp_path, *command) as host:
        yield host


def test_the_howtos_line_serves_two_domains_under_inetd(inetd: Host) -> None:
    """Each address answers from its own tree, under its own host name, and an unknown one is closed."""
    assert [inetd.ask(f"127.0.10.{number}", 21) for number in (1, 2, 1, 3)] == [
        told("domain1.com", "127.0.10.1"),
        told("domain2.com", "127.0.10.2"),
        told("domain1.com", "127.0.10.1"),
        "",
    ]


def test_the_howtos_line_serves_two_domains_under_xinetd(howto: Path, tmp_path: Path) -> None:
    """The same words as an entry of xinetd.conf."""
    conf = tmp_path / "xinetd.conf"
    conf.write_text(
        "service ftp\n{\n socket_type = stream\n protocol = tcp\n wait = no\n user = root\n"
        " server = /usr/bin/virtuald\n server_args = /virtual/conf.ftp wu.ftpd -l -a\n}\n"
    )
    command = (superserver.xinetd(tmp_path), "-dontfork", "-f", str(conf))
    with superserver.running(howto, tmp_path, *command) as host:
        assert [host.ask(f"127.0.10.{number}", 21) for number in (1, 2, 3)] == [
            told("domain1.com", "127.0.10.1"),
            told("domain2.com", "127.0.10.2"),
            "",
        ]


def test_a_user_column_that_is_not_root_is_refused_in_silence(howto: Path, tmp_path: Path) -> None:
    """It needs root to enter; --user drops it inside, by the tree's own passwd."""
    conf = tmp_path / "inetd.conf"
    conf.write_text(
        LINE.replace(" root ", " nobody ")
        + LINE.replace("ftp ", "telnet ", 1).replace("virtuald /v", "virtuald --user bob /v")
    )
    command = (superserver.inetd(), "-i", "-R", "0", str(conf))
    with superserver.running(howto, tmp_path, *command) as host:
        assert host.ask("127.0.10.1", 21) == ""
        assert host.ask("127.0.10.2", 23) == told("domain2.com", "127.0.10.2", uid=1001)


MANIFEST = """\
profiles = []
files = [{{ from = "{service}", to = "/usr/sbin/wu.ftpd" }}, {{ from = "{hostname}", to = "/etc/hostname" }}]
users = [{{ name = "bob", uid = 1001, create_home = false }}]
etc.skeleton = ["passwd"]

[[services]]
name = "ftp"
port = 21
program = "/usr/sbin/wu.ftpd"
args = ["-l", "-a"]
user = "bob"
cps = "50 10"

[[services]]
name = "echoes"
port = 2000
protocol = "udp"
program = "/usr/sbin/wu.ftpd"

[[services]]
name = "sweep"
program = "/usr/sbin/wu.ftpd"
every = "1h"
args = ["a b", "$HOME %n"]
"""


@pytest.fixture
def declared(virt: Virt, service: Path, tmp_path: Path) -> Virt:
    """Two domains that declare services, with their routes written."""
    for number in (1, 2):
        name = f"domain{number}.com"
        hostname = tmp_path / name
        hostname.write_text(f"{name}\n")
        manifest = tmp_path / f"{name}.toml"
        manifest.write_text(MANIFEST.format(service=service, hostname=hostname))
        virt.create(name, "-m", str(manifest), "--ip", f"127.0.10.{number}")
    assert virt.good("services", "sync") == "wrote conf.echoes\nwrote conf.ftp\n"
    return virt


@pytest.mark.parametrize("kind", ["inetd", "xinetd"])
def test_what_is_rendered_serves_what_is_declared(
    declared: Virt, tmp_path: Path, kind: str
) -> None:
    """The real program takes the text as it is, and each domain answers, by TCP and by UDP."""
    conf = tmp_path / f"{kind}.conf"
    conf.write_text(declared.good("render", kind))
    command = [superserver.inetd(), "-i", "-R", "0", str(conf)]
    if kind == "xinetd":
        command = [superserver.xinetd(tmp_path), "-dontfork", "-f", str(conf)]
    with superserver.running(declared.root, tmp_path, *command) as host:
        for number in (1, 2):
            domain, address = f"domain{number}.com", f"127.0.10.{number}"
            assert host.ask(address, 21) == told(domain, address, uid=1001)
            assert host.ask(address, 2000, "x", "SOCK_DGRAM") == (
                f"{domain} {domain} uid 0 PROTO=UDP UDPLOCALIP={address} UDPREMOTEIP=127.0.0.1"
                " USER=root\n"
            )


def test_systemd_finds_no_fault_with_the_units(declared: Virt, tmp_path: Path) -> None:
    """`systemd-analyze verify` reads every unit without a word, and sees the arguments as declared."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    folder = tmp_path / "units"
    folder.mkdir()
    written = declared.good("render", "systemd", "--output", str(folder)).split()[1::2]
    assert sorted(written) == sorted(path.name for path in folder.iterdir())
    assert len(written) == 2 + 2 * 2 + 2 * 2
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(folder / name for name in written)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "SYSTEMD_LOG_LEVEL": "warning"},
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_routes_are_kept_as_the_domains_are(declared: Virt) -> None:
    """A second sync changes nothing; a removed domain leaves; what was written by hand stays."""
    assert declared.good("services", "sync") == ""
    listed = [line.split("\t")[:3] for line in declared.good("services").splitlines()]
    assert listed == [
        [name, port, f"domain{number}.com"]
        for number in (1, 2)
        for name, port in (("ftp", "21/tcp"), ("echoes", "2000/udp"), ("sweep", "every 1h"))
    ]
    assert declared.json("services")["services"][0] == {
        "service": "ftp",
        "domain": "domain1.com",
        "port": 21,
        "protocol": "tcp",
        "every": None,
        "addresses": ["127.0.10.1"],
        "user": "bob",
        "program": "/usr/sbin/wu.ftpd",
    }
    assert [one["name"] for one in declared.json("render", "inetd")["files"]] == [""]
    assert declared("render", "tcpd").status == 2
    declared.good("remove", "--yes", "domain1.com")
    assert declared.good("services", "sync") == "wrote conf.echoes\nwrote conf.ftp\n"
    conf = declared.root / "conf.ftp"
    assert conf.read_text().splitlines()[1:] == [f"127.0.10.2 {declared.root}/domain2.com"]
    assert conf.stat().st_mode & 0o777 == 0o644
    declared.good("virtuald", "--check", str(conf))
    conf.write_text(f"127.0.10.2 {declared.root}/domain2.com\n")
    done = declared("services", "sync")
    assert (done.status, conf.read_text()[:10]) == (78, "127.0.10.2")
    assert "it was written by hand" in done.err
    conf.unlink()
    declared.good("remove", "--yes", "domain2.com")
    assert declared.good("services", "sync") == "removed conf.echoes\n"
