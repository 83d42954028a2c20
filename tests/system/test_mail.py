"""Mail of two domains on one machine: to each other, through DNS or /etc/hosts, and to nobody else."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.calls import VIRT
from tests.system.certificates import certificate
from tests.system.mailing import (
    ADDRESSES,
    ANN,
    DNS,
    ONE,
    TWO,
    Machine,
    alias,
    dns,
    domains,
    owner,
    queued,
    serving,
)
from tests.system.waiting import until

BOTH_WAYS = ((ONE, TWO), (TWO, ONE))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Two domains, each with a bob; their queues are run every second."""
    with domains(tmp_path_factory.mktemp("mail"), "smtp") as found:
        yield found


@pytest.fixture
def served(here: Machine, tmp_path: Path) -> Iterator[Machine]:
    """With DNS, and `virt serve`."""
    with dns(here), serving(here, tmp_path):
        yield here


@pytest.mark.parametrize(("sender", "recipient"), BOTH_WAYS)
def test_a_program_of_one_domain_sends_to_the_other(
    served: Machine, sender: str, recipient: str
) -> None:
    """By sendmail inside; it lies in the recipient's spool, in that domain's numbers, and nowhere else."""
    told = f"from a program of {sender}"
    served.hand_in(sender, f"bob@{recipient}", told=told)
    found = served.await_mail(recipient, told)
    assert f"bob@{recipient}" in found
    assert told not in served.spool(sender)
    assert owner(served, recipient) == ("bob", "mail", 0o660)
    until(lambda: told not in everything(served, sender), "the sender's queue is empty")


def everything(here: Machine, domain: str) -> str:
    """What lies below /var of a domain."""
    return here.run("grep", "-rha", "from a program", str(here.virt.tree(domain) / "var")).out


def test_a_client_hands_in_mail_for_the_domain_and_for_no_other(served: Machine) -> None:
    """Who is no user here is refused at once, 550; so is a relay, from wherever on this machine."""
    refused = served.send(
        TWO, ANN, f"bob@{TWO}", f"fred@{TWO}", f"bob@{ONE}", "x@elsewhere.test",
        text="by a client",
    )  # fmt: skip
    assert {who: told[0] for who, told in refused.items()} == {
        f"fred@{TWO}": 550,
        f"bob@{ONE}": 550,
        "x@elsewhere.test": 550,
    }
    served.await_mail(TWO, "by a client")
    assert "by a client" not in served.spool(ONE)
    # Anybody on this machine may connect from the domain's own address.
    own = served.send(TWO, f"bob@{TWO}", f"bob@{ONE}", source=ADDRESSES[TWO])
    assert [told[0] for told in own.values()] == [550]


def test_mail_for_postmaster_arrives_and_nothing_is_written_as_root(served: Machine) -> None:
    """The alias leads to root, whose mail belongs to the user mail."""
    assert served.send(ONE, ANN, f"postmaster@{ONE}", text="to the master") == {}
    served.await_mail(ONE, "to the master", user="root")
    assert owner(served, ONE, "root") == ("mail", "mail", 0o660)


def test_an_alias_of_one_domain_is_none_of_the_other(served: Machine) -> None:
    """The program newaliases is run there, and only /etc/aliases there is asked."""
    alias(served, "etc/aliases")


def test_what_the_administrator_lays_down_holds_at_once(served: Machine) -> None:
    """Another name of the domain, a host that may relay, and a certificate."""
    etc = served.virt.tree(ONE) / "etc/exim4"
    assert not served.offers_tls(ONE)
    (etc / "local-domains").write_text("other-name.test\n")
    (etc / "relay-hosts").write_text(f"{DNS}/32\n")
    certify(etc)
    try:
        told = served.send(ONE, ANN, "bob@other-name.test", f"bob@{TWO}", text="relayed")
        assert told == {}
        assert served.await_mail(ONE, "relayed")
        assert served.await_mail(TWO, "relayed")
        assert served.offers_tls(ONE)
        assert not served.offers_tls(TWO)
    finally:
        for name in ("local-domains", "relay-hosts"):
            (etc / name).write_text("")
        for name in ("exim.crt", "exim.key"):
            (etc / name).unlink()


def certify(etc: Path) -> None:
    """A certificate of its own, whose key the server's user may read."""
    spool = etc.parents[1] / "var/spool/exim4"
    for name, text in zip(("exim.key", "exim.crt"), certificate(ONE), strict=True):
        (etc / name).write_text(text)
        os.chown(etc / name, 0, spool.stat().st_gid)
        (etc / name).chmod(0o640)


def test_mail_waits_for_a_domain_that_is_down(here: Machine, tmp_path: Path) -> None:
    """The queue of the sender lists it, that of the other does not; the server's own runs deliver it."""
    with dns(here):
        here.hand_in(ONE, f"bob@{TWO}", told="once you are up")
        assert f"bob@{TWO}" in queued(here, ONE)
        assert f"bob@{TWO}" not in queued(here, TWO)
        assert "once you are up" not in here.spool(TWO)
        with serving(here, tmp_path):
            here.await_mail(TWO, "once you are up")
            until(lambda: f"bob@{TWO}" not in queued(here, ONE), "its queue is empty")


def test_without_dns_the_hosts_file_will_do(here: Machine, tmp_path: Path) -> None:
    """A line in /etc/hosts of the domain that sends."""
    hosts = here.virt.tree(ONE) / "etc/hosts"
    before = hosts.read_text()
    hosts.write_text(f"{before}{ADDRESSES[TWO]} {TWO}\n")
    try:
        with serving(here, tmp_path):
            here.hand_in(ONE, f"bob@{TWO}", told="without dns")
            here.await_mail(TWO, "without dns")
    finally:
        hosts.write_text(before)


def test_a_full_spool_keeps_mail_waiting_and_no_neighbour_minds(
    here: Machine, tmp_path: Path
) -> None:
    """It is accepted, lies in that domain's queue, and arrives once there is room."""
    spool = here.virt.tree(TWO) / "var/mail"
    gid = spool.stat().st_gid
    small = ("mount", "-t", "tmpfs", "-o", f"size=64k,mode=2775,gid={gid}", "none", str(spool))
    assert here.run(*small).status == 0
    try:
        with dns(here), serving(here, tmp_path):
            large = "\r\n".join(["much of it"] * 20_000)
            assert here.send(TWO, ANN, f"bob@{TWO}", text=large) == {}
            until(lambda: f"bob@{TWO}" in queued(here, TWO), "it waits")
            assert here.send(ONE, ANN, f"bob@{ONE}", text="a small one") == {}
            here.await_mail(ONE, "a small one")
            assert f"bob@{TWO}" in queued(here, TWO)
            assert "much of it" not in here.spool(TWO)
            here.run("sh", "-c", f"head -c 64k /dev/zero >'{spool}/filler'")
            told = here.run(str(VIRT), "test", TWO)
            assert told.status == 1
            assert "\tcause\tthe file system of /var/mail is full: 0 of 64 KiB are free" in told.out
            assert here.run("rm", f"{spool}/filler").status == 0
            assert here.run("mount", "-o", "remount,size=8m", str(spool)).status == 0
            here.await_mail(TWO, "much of it")
            until(lambda: f"bob@{TWO}" not in queued(here, TWO), "the queue is empty")
    finally:
        assert here.run("umount", str(spool)).status == 0


def test_a_trial_is_green_and_leaves_no_mail_behind(here: Machine) -> None:
    """A message handed in is found in the mailbox of an account that is there for the trial only."""
    before = here.inside(ONE, "find", "/var", "/etc", "/home", "-ls").out
    found = here.virt.json("test", ONE)
    assert [(one["service"], one["ok"]) for one in found["services"]] == [("smtp", True)]
    assert found["services"][0]["told"] == "message taken, and found in the mailbox"
    assert found["missing"] == found["untried"] == []
    assert here.inside(ONE, "find", "/var", "/etc", "/home", "-ls").out == before


def test_a_trial_names_what_is_gone(here: Machine) -> None:
    """Without the server's configuration nobody is greeted."""
    path = next((here.virt.tree(ONE) / "etc").glob("*/exim4.conf"))
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        done = here.virt("test", ONE)
    finally:
        aside.rename(path)
    assert done.status == 1
    assert [line.split("\t")[2] for line in done.out.splitlines()] == ["failed", "missing"]
    assert "/etc/exim4/exim4.conf: comes by profiles/smtp.toml:" in done.out


HOST_EXIM = """\
spool_directory = {folder}/queue
log_file_path = {folder}/%slog
exim_user = Debian-exim
exim_group = Debian-exim
begin routers
all:
  driver = accept
  transport = file
begin transports
file:
  driver = appendfile
  file = {folder}/delivered
  user = nobody
"""


def test_the_hosts_own_queue_is_run_too(here: Machine, tmp_path: Path) -> None:
    """By what /etc/virttools/virt.toml says; a reload takes in what is added there."""
    folder = Path(here.run("mktemp", "-d", "/tmp/virt-host-XXXXXX").out.strip())
    folder.chmod(0o777)
    conf = tmp_path / "exim.conf"
    conf.write_text(HOST_EXIM.format(folder=folder))
    exim = ("/usr/sbin/exim4", "-C", str(conf))
    here.have_own_etc()
    try:
        with serving(here, tmp_path) as server:
            told = here.run(*exim, "-odq", "ann@here.test", text="Subject: x\n\nof the host\n")
            assert told.status == 0, told.err
            here.write_settings(
                '[[services]]\nname = "host-queue"\nevery = "1s"\n'
                f'program = "{exim[0]}"\nargs = ["-C", "{conf}", "-qff"]\n'
            )
            server.reload()
            until((folder / "delivered").exists, "the host's queue is run")
            until(lambda: "of the host" in (folder / "delivered").read_text(), "it is delivered")
            (row,) = [one for one in server.status()["periodic"] if one["command"] == "host-queue"]
            assert (row["domain"], row["failed"]) == ("", 0)
    finally:
        shutil.rmtree(folder)
