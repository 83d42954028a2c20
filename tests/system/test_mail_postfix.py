"""Mail for volume: a postfix of its own for each of two domains, run by `virt serve` as a daemon."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.calls import VIRT
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
from tests.system.server import Server
from tests.system.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Two domains with a bob each, on a machine that has postfix, and its DNS."""
    with domains(tmp_path_factory.mktemp("postfix"), "smtp-postfix") as found, dns(found):
        yield found


@pytest.fixture(scope="module")
def server(here: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It serves both all the time."""
    folder = tmp_path_factory.mktemp("server")
    with serving(here, folder) as found:
        for name in ADDRESSES:
            answers(here, name)
        yield found


def answers(here: Machine, domain: str) -> None:
    words = ("bash", "-c", f"exec 3<>/dev/tcp/{ADDRESSES[domain]}/25")
    until(lambda: here.run(*words).status == 0, f"{domain} answers on port 25")


def master(server: Server, domain: str) -> int:
    """The pid of a domain's postfix; 0 of none."""
    (pid,) = [one["pid"] for one in server.status()["daemons"] if one["domain"] == domain]
    return int(pid)


def test_a_unit_of_systemd_runs_it_too(here: Machine) -> None:
    """By its command; what a user's .forward starts may send on, which takes a set-id bit."""
    unit = next(
        text
        for text in here.run(str(VIRT), "render", "systemd").out.split("\n\n")
        if text.startswith("[Service]") and ONE in text
    )
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    forward = here.virt.tree(ONE) / "home/bob/.forward"
    forward.write_text('\\bob, "|/usr/sbin/sendmail postmaster"\n')
    process = subprocess.Popen(
        here.within(*shlex.split(line.partition("=")[2])), stdin=subprocess.DEVNULL
    )
    try:
        answers(here, ONE)
        assert here.send(ONE, ANN, f"bob@{ONE}", text="by a unit") == {}
        here.await_mail(ONE, "by a unit")
        here.await_mail(ONE, "by a unit", user="root")
    finally:
        forward.unlink()
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("sender", "recipient"), [(ONE, TWO), (TWO, ONE)])
def test_domains_send_to_each_other(here: Machine, sender: str, recipient: str) -> None:
    """By sendmail inside, through both masters, into the other's spool only, in that domain's numbers."""
    told = f"written in {sender}"
    here.hand_in(sender, f"bob@{recipient}", told=told)
    assert f"from {sender} ({sender} [{ADDRESSES[sender]}])" in here.await_mail(recipient, told)
    assert told not in here.spool(sender)
    assert owner(here, recipient) == ("bob", "mail", 0o600)
    until(lambda: queued(here, sender) == "Mail queue is empty\n", "the sender's queue is empty")


@pytest.mark.usefixtures("server")
def test_a_client_hands_in_mail_for_the_domain_and_for_no_other(here: Machine) -> None:
    """Who is no user here is refused, and so is a relay, from wherever on this machine."""
    away = (f"bob@{ONE}", "x@elsewhere.test", f"bob@[{ADDRESSES[ONE]}]", f"bob%{ONE}@{TWO}")
    refused = here.send(TWO, ANN, f"bob@{TWO}", f"fred@{TWO}", *away, text="by a client")
    assert {who: told[0] for who, told in refused.items()} == {
        f"fred@{TWO}": 550,
        **dict.fromkeys(away, 554),
    }
    here.await_mail(TWO, "by a client")
    assert "by a client" not in here.spool(ONE)
    own = here.send(TWO, f"bob@{TWO}", f"bob@{ONE}", source=ADDRESSES[TWO])
    assert [told[0] for told in own.values()] == [554]


@pytest.mark.usefixtures("server")
def test_aliases_are_the_domains_own(here: Machine) -> None:
    """What newaliases makes holds at once, in one domain; postmaster is there from the start."""
    assert here.send(TWO, ANN, f"postmaster@{TWO}", text="to the master") == {}
    here.await_mail(TWO, "to the master", user="root")
    assert owner(here, TWO, "root") == ("root", "mail", 0o600)
    alias(here, "etc/aliases")


def test_what_the_administrator_lays_down_holds_after_a_reload(
    here: Machine, server: Server
) -> None:
    """Another name of the domain, found by /etc/hosts of the sender, and a host that may relay."""
    etc = here.virt.tree(TWO) / "etc/postfix"
    (etc / "local-domains").write_text("other-name.test\n")
    (etc / "relay-hosts").write_text(f"{DNS}/32\n")
    with (here.virt.tree(ONE) / "etc/hosts").open("a") as file:
        file.write(f"{ADDRESSES[TWO]} other-name.test\n")
    os.kill(master(server, TWO), signal.SIGHUP)
    until(lambda: here.send(TWO, ANN, "bob@other-name.test", text="anew") == {}, "it is read anew")
    here.hand_in(ONE, "bob@other-name.test", told="by hosts")
    here.await_mail(TWO, "by hosts")
    assert here.send(TWO, ANN, f"bob@{ONE}", text="relayed") == {}
    here.await_mail(ONE, "relayed")


def is_deferred(listed: str) -> bool:
    """Whether what was tried in vain is not being tried still, which mailq marks by an asterisk: no flush would find it."""
    return "Permission denied" in listed and "*" not in listed


@pytest.mark.usefixtures("server")
def test_mail_waits_for_a_neighbour_that_is_down(here: Machine) -> None:
    """The queue of the sender lists it, that of the other does not; then it goes out."""
    address = f"{ADDRESSES[TWO]}/24"
    route = ("ip", "route", "{}", "prohibit", ADDRESSES[TWO])
    assert here.run("ip", "address", "del", address, "dev", "lo").status == 0
    assert here.run(*(word.format("add") for word in route)).status == 0
    here.hand_in(ONE, f"bob@{TWO}", told="once you are up")
    until(lambda: is_deferred(queued(here, ONE)), "it was tried, and waits")
    assert f"bob@{TWO}" in queued(here, ONE)
    assert queued(here, TWO) == "Mail queue is empty\n"
    assert here.run(*(word.format("del") for word in route)).status == 0
    assert here.run("ip", "address", "add", address, "dev", "lo").status == 0
    assert here.inside(ONE, "postqueue", "-f").status == 0
    here.await_mail(TWO, "once you are up")
    until(lambda: queued(here, ONE) == "Mail queue is empty\n", "the queue is empty")


def test_a_master_that_is_killed_comes_back(here: Machine, server: Server) -> None:
    """With its port and its queue; the other's is not touched."""
    before = {name: master(server, name) for name in ADDRESSES}
    os.kill(before[ONE], signal.SIGKILL)
    until(lambda: master(server, ONE) not in (0, before[ONE]), "started anew")
    answers(here, ONE)
    assert here.send(ONE, ANN, f"bob@{ONE}", text="after the end") == {}
    here.await_mail(ONE, "after the end")
    assert master(server, TWO) == before[TWO]


def test_a_trial_is_green_and_leaves_no_mail_behind(here: Machine) -> None:
    """With a master of its own, however much that logs; what is there, running or not, is left alone."""
    conf = here.virt.tree(TWO) / "etc/postfix/main.cf"
    before = conf.read_text()
    chatty = "warn_if_reject reject, " * 40  # each of them is a line of the log
    conf.write_text(f"{before}smtpd_client_restrictions = {chatty}\n")
    try:
        found = here.virt.json("test", TWO, "smtp")
    finally:
        conf.write_text(before)
    (row,) = found["services"]
    assert (row["ok"], row["told"]) == (True, "message taken, and found in the mailbox")
    assert found["missing"] == []
    spool = here.virt.tree(TWO) / "var/spool/postfix"
    assert [path for path in (spool / "incoming").rglob("*") if path.is_file()] == []
    assert {path.name for path in (here.virt.tree(TWO) / "var/mail").iterdir()} <= {"bob", "root"}


def test_both_domains_began_with_the_same_aliases(here: Machine) -> None:
    """Byte by byte: the database holds neither time nor chance; what a user sends becomes postdrop."""
    made = {name: made_by_build(here, name, "/etc/aliases.db") for name in ADDRESSES}
    assert made[ONE] == made[TWO]
    done = here.inside(TWO, "stat", "-c", "%a %U:%G", "/usr/sbin/postdrop", "/usr/sbin/postqueue")
    assert done.out == "2755 root:postdrop\n" * 2


def made_by_build(here: Machine, domain: str, path: str) -> str:
    """The digest that the record has of a file."""
    entries = json.loads(here.virt.record(domain))["entries"]
    (found,) = [one["sha256"] for one in entries if one["path"] == path]
    return str(found)


def test_who_lacks_postfix_is_told_what_to_install(here: Machine) -> None:
    """The tests' own machine has exim4 instead."""
    if Path("/usr/lib/postfix/sbin/master").exists():
        pytest.skip("this machine has postfix")
    done = here.virt("create", "--yes", "-n", "d3.example", "-p", "smtp-postfix")
    assert done.status == 69
    assert "hint: on Debian: apt-get install postfix" in done.err
