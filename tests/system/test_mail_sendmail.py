"""Mail as the HOWTO had it: sendmail and procmail, for two domains on one machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.mailing import Machine, dns, domains, owner, queued
from tests.system.server import serving, until

ONE, TWO = "domain1.com", "domain2.com"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Two domains with a bob each, on a machine that has sendmail."""
    with domains(tmp_path_factory.mktemp("sendmail"), "smtp-sendmail") as found:
        yield found


@pytest.fixture
def served(here: Machine, tmp_path: Path) -> Iterator[Machine]:
    with dns(here), serving(here.virt.root, tmp_path, wrapper=here.within()):
        yield here


@pytest.mark.parametrize(("sender", "recipient"), [(ONE, TWO), (TWO, ONE)])
def test_domains_send_to_each_other_without_a_patch(
    served: Machine, sender: str, recipient: str
) -> None:
    """By the program inside, through its own server, to the other's; procmail delivers there only."""
    told = f"written in {sender}"
    done = served.inside(sender, "sendmail", f"bob@{recipient}", text=f"Subject: x\n\n{told}\n")
    assert done.status == 0, done.err
    served.await_mail(recipient, told)
    assert told not in served.spool(sender)
    name, group, mode = owner(served, recipient)
    assert (name, group, mode & 0o007) == ("bob", "mail", 0)


def test_users_and_aliases_are_the_domains_own(served: Machine) -> None:
    """No relay, no unknown user, and what newaliases makes in one domain is none of the other."""
    ann = "ann@domain2.com"
    refused = served.send(ONE, ann, f"fred@{ONE}", f"bob@{TWO}", f"sales@{ONE}", f"bob@{ONE}")
    assert {who: told[0] for who, told in refused.items()} == {
        f"fred@{ONE}": 550,
        f"bob@{TWO}": 550,
        f"sales@{ONE}": 550,
    }
    aliases = served.virt.tree(ONE) / "etc/mail/aliases"
    aliases.write_text(f"{aliases.read_text()}sales: bob\n")
    done = served.inside(ONE, "newaliases")
    assert done.status == 0, done.err
    assert served.send(ONE, ann, f"sales@{ONE}", text="one for sales") == {}
    served.await_mail(ONE, "one for sales")
    refused = served.send(TWO, f"ann@{ONE}", f"sales@{TWO}")
    assert [told[0] for told in refused.values()] == [550]


def test_a_queue_is_its_domains_and_run_by_the_server(here: Machine, tmp_path: Path) -> None:
    """While the other is down, mailq lists it for the sender; then it is delivered."""
    with dns(here):
        words = ("sendmail", "-Am", f"bob@{TWO}")
        done = here.inside(ONE, *words, text="Subject: later\n\nonce you are up\n")
        assert done.status == 0, done.err
        assert f"bob@{TWO}" in queued(here, ONE)
        assert f"bob@{TWO}" not in queued(here, TWO)
        with serving(here.virt.root, tmp_path, wrapper=here.within()):
            here.await_mail(TWO, "once you are up")
            until(lambda: f"bob@{TWO}" not in queued(here, ONE), "its queue is empty")


def test_what_m4_made_is_the_domains_alone(here: Machine) -> None:
    """It names neither this machine nor the time, nor the other domain."""
    made = [
        (here.virt.tree(ONE) / f"etc/mail/{file}.cf").read_text().replace(ONE, "")
        for file in ("sendmail", "submit")
    ]
    assert all("built by" not in text and TWO not in text for text in made)
