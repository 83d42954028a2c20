"""Mail as the HOWTO had it: sendmail and procmail, for two domains on one machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.mailing import (
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


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Two domains with a bob each, on a machine that has sendmail."""
    with domains(tmp_path_factory.mktemp("sendmail"), "smtp-sendmail") as found:
        yield found


@pytest.fixture
def served(here: Machine, tmp_path: Path) -> Iterator[Machine]:
    with dns(here), serving(here, tmp_path):
        yield here


@pytest.mark.parametrize(("sender", "recipient"), [(ONE, TWO), (TWO, ONE)])
def test_domains_send_to_each_other_without_a_patch(
    served: Machine, sender: str, recipient: str
) -> None:
    """By the program inside, through its own server, to the other's; procmail delivers there only."""
    told = f"written in {sender}"
    served.hand_in(sender, f"bob@{recipient}", told=told)
    served.await_mail(recipient, told)
    assert told not in served.spool(sender)
    name, group, mode = owner(served, recipient)
    assert (name, group, mode & 0o007) == ("bob", "mail", 0)


def test_users_and_aliases_are_the_domains_own(served: Machine) -> None:
    """No relay, no unknown user, and what newaliases makes in one domain is none of the other."""
    ann = "ann@domain2.com"
    refused = served.send(ONE, ann, f"fred@{ONE}", f"bob@{TWO}", f"bob@{ONE}")
    assert {who: told[0] for who, told in refused.items()} == {
        f"fred@{ONE}": 550,
        f"bob@{TWO}": 550,
    }
    alias(served, "etc/mail/aliases")


def test_a_queue_is_its_domains_and_run_by_the_server(here: Machine, tmp_path: Path) -> None:
    """While the other is down, mailq lists it for the sender; then it is delivered."""
    with dns(here):
        here.hand_in(ONE, "-Am", f"bob@{TWO}", told="once you are up")
        assert f"bob@{TWO}" in queued(here, ONE)
        assert f"bob@{TWO}" not in queued(here, TWO)
        with serving(here, tmp_path):
            here.await_mail(TWO, "once you are up")
            until(lambda: f"bob@{TWO}" not in queued(here, ONE), "its queue is empty")


def test_what_m4_made_is_the_domains_alone(here: Machine) -> None:
    """It names neither this machine nor the time, nor the other domain."""
    made = [
        (here.virt.tree(ONE) / f"etc/mail/{file}.cf").read_text().replace(ONE, "")
        for file in ("sendmail", "submit")
    ]
    assert all("built by" not in text and TWO not in text for text in made)
