"""`virt render hosts` and `zone`, read by the resolver and by BIND's own checker."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system import ground
from tests.system.calls import Virt
from virttools.manifest.model import Layer
from virttools.tree import apply, publish
from virttools.tree.root import open_root

EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
SERIAL = "2023111401"
SERVICE = '[[services]]\nname = "{}"\nport = {}\nprogram = "/bin/x"\n'
FULL = (
    'addresses = ["192.0.2.1", "2001:db8::1"]\n'
    + SERVICE.format("web", 443)
    + SERVICE.format("smtp", 25)
    + 'bind = ["192.0.2.1"]\n'
    + SERVICE.format("ftp", 21)
)
DAEMON = (
    'addresses = ["192.0.2.2"]\n[[daemons]]\nname = "w"\nprogram = "/bin/w"\nports = [80]\n'
    + SERVICE.format("datagrams", 25)
    + 'protocol = "udp"\n'
)
DOMAINS = {
    "full.example": FULL,
    "ftp.full.example": 'addresses = ["192.0.2.3"]\n',
    "daemon.example": DAEMON,
    "nowhere.example": "",
}


@pytest.fixture(scope="module")
def all_domains(tmp_path_factory: pytest.TempPathFactory) -> Virt:
    return make(tmp_path_factory, DOMAINS)


@pytest.fixture(scope="module")
def only(tmp_path_factory: pytest.TempPathFactory) -> Virt:
    return make(tmp_path_factory, {"daemon.example": DAEMON})


def make(factory: pytest.TempPathFactory, domains: Mapping[str, str]) -> Virt:
    """Domains with nothing in their trees, by the records that a build would have written."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    virt = Virt(factory.mktemp("virtual"))
    virt.root.chmod(0o755)
    with (
        open_root(str(virt.root), make=True) as root,
        apply.building(root, [ground.plan(name) for name in domains]) as builts,
    ):
        records = [
            replace(ground.record(one), layers=(Layer("test.toml", domains[one.plan.domain]),))
            for one in builts
        ]
        publish.publish(root, list(zip(builts, records, strict=True)))
    return virt


def zone(tmp_path: Path, domain: str, text: str) -> set[tuple[str, ...]]:
    """The records that named-checkzone read, as (full name, type, data...); it must not complain."""
    file = tmp_path / "zone"
    file.write_text(text)
    done = subprocess.run(
        ["named-checkzone", "-i", "local", "-k", "fail", "-n", "fail", "-m", "fail", "-M", "fail",
         "-D", "-o", "-", domain, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded serial" in done.stderr + done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if " IN " in line.replace("\t", " ")]
    assert {row[1] for row in rows} == {"3600"}
    return {(row[0], *row[3:]) for row in rows}


def soa(nameserver: str, domain: str, serial: str) -> tuple[str, ...]:
    times = ("3600", "900", "1209600", "3600")
    return (f"{domain}.", "SOA", nameserver, f"hostmaster.{domain}.", serial, *times)


def test_hosts_are_found_by_the_resolver(all_domains: Virt, tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(all_domains.good("render", "hosts"))
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    names = ["full.example", "www.full.example"]
    assert sorted(lines) == [
        ["192.0.2.1", *names, "mail.full.example"],
        ["192.0.2.2", "daemon.example", "www.daemon.example"],
        ["192.0.2.3", "ftp.full.example"],
        ["2001:db8::1", *names],
    ]
    asked = resolved(
        file, "www.full.example", "mail.full.example", "ftp.full.example", "www.daemon.example"
    )
    assert asked == ["2001:db8::1", "192.0.2.1", "192.0.2.3", "192.0.2.2"]


def resolved(hosts: Path, *names: str) -> list[str]:
    """What getent(1) says of them, with that file as /etc/hosts of a mount namespace."""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec",
         'mount --bind "$1" /etc/hosts; shift; getent -s hosts:files hosts "$@"',
         "sh", str(hosts), *names],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_a_zone_is_whole(all_domains: Virt, tmp_path: Path) -> None:
    """A name that is a domain itself has that domain's address; a bound service that address."""
    text = all_domains("render", "zone", "Full.example", env=EPOCH).out
    apex, server = "full.example.", "ns.full.example."
    both = (("A", "192.0.2.1"), ("AAAA", "2001:db8::1"))
    assert zone(tmp_path, "full.example", text) == {
        soa(server, "full.example", SERIAL),
        (apex, "NS", server),
        (apex, "MX", "10", "mail.full.example."),
        *((name, *row) for name in (apex, server, f"www.{apex}") for row in both),
        (f"mail.{apex}", "A", "192.0.2.1"),
        (f"ftp.{apex}", "A", "192.0.2.3"),
    }


@pytest.mark.parametrize(
    ("server", "glue"),
    [
        ("a.dns.example.", ()),
        ("www.daemon.example", ()),
        ("daemon.example", ()),
        ("ns1.daemon.example", (("ns1.daemon.example.", "A", "192.0.2.2"),)),
    ],
)
def test_a_nameserver_may_be_named(
    only: Virt, tmp_path: Path, server: str, glue: tuple[tuple[str, ...], ...]
) -> None:
    """And what answers only udp on port 25 is no mail."""
    text = only.good("render", "zone", "--nameserver", server, "--serial", "4294967295")
    name = server.rstrip(".") + "."
    assert zone(tmp_path, "daemon.example", text) == {
        soa(name, "daemon.example", "4294967295"),
        ("daemon.example.", "NS", name),
        ("daemon.example.", "A", "192.0.2.2"),
        ("www.daemon.example.", "A", "192.0.2.2"),
        *glue,
    }


def test_without_domains_there_are_no_names(virt: Virt) -> None:
    assert virt("render", "zone").status == 68
    assert virt.good("render", "hosts").count("\n") == 1


def test_what_a_zone_cannot_be(all_domains: Virt) -> None:
    virt = all_domains
    done = virt("render", "zone")
    assert done.status == 2
    assert all(name in done.err for name in DOMAINS)
    assert virt("render", "zone", "other.example").status == 68
    done = virt("render", "zone", "nowhere.example")
    assert (done.status, "no address" in done.err) == (78, True)
    virt.good("render", "zone", "nowhere.example", "--nameserver", "a.dns.example")
    assert virt("render", "hosts", "full.example").status == 2
    assert virt("render", "logrotate", "--serial", "1").status == 2
    for words in (("--serial", "4294967296"), ("--nameserver", "a b"), ("--nameserver", "1.2.3.4")):
        assert virt("render", "zone", "full.example", *words).status == 2
    wrong = virt("render", "zone", "full.example", env={"SOURCE_DATE_EPOCH": "soon"})
    assert (wrong.status, "SOURCE_DATE_EPOCH" in wrong.err) == (2, True)
