"""Numbers for declared users and groups: what is free, what is shared, what conflicts."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import ManifestError
from virttools.manifest.load import reload
from virttools.manifest.model import Group, Layer, Manifest, Origin, User
from virttools.tree.accounts import Accounts, number
from virttools.tree.ranges import SPAN


def numbered(text: str) -> Accounts:
    """The accounts of a manifest given as TOML."""
    return number(reload((Layer("site.toml", text),)))


def user(name: str, uid: int | None = None, group: str | None = None, line: int = 1) -> User:
    """A user as the parser makes it, but unchecked."""
    home = PurePosixPath(f"/home/{name}")
    return User(name, uid, group, (), "", home, "/bin/sh", "!", create_home=True, origin=at(line))


def at(line: int) -> Origin:
    """A line of a manifest."""
    return Origin("site.toml", line)


def problems(manifest: Manifest) -> list[str]:
    """What number() finds wrong."""
    with pytest.raises(ManifestError) as caught:
        number(manifest)
    return [str(problem) for problem in caught.value.problems]


def test_a_user_without_numbers_gets_the_first_ones_and_a_group_of_its_own() -> None:
    """As adduser does: uid and gid are the same number, from 1000 on."""
    accounts = numbered('users = [{ name = "bob" }, { name = "eve" }]')
    bob, eve = accounts.users[1:]
    assert (bob.uid, bob.gid, bob.group, bob.home) == (1000, 1000, "bob", "/home/bob")
    assert (eve.uid, eve.gid, eve.group) == (1001, 1001, "eve")
    assert [(group.name, group.gid) for group in accounts.groups] == [
        ("root", 0),
        ("bob", 1000),
        ("eve", 1001),
    ]


def test_numbers_that_are_declared_anywhere_are_not_given_away() -> None:
    """A later line may claim 1000; an earlier user without number must not have taken it."""
    accounts = numbered(
        """
        users = [{ name = "bob" }, { name = "eve", uid = 1000, group = "users" }]
        groups = [{ name = "users", gid = 1001 }, { name = "www" }]
        """
    )
    assert accounts.uid_of("eve") == 1000
    assert accounts.uid_of("bob") == accounts.gid_of("bob") == 1002
    assert accounts.gid_of("www") == 1000


def test_a_group_of_the_users_name_is_its_primary_group() -> None:
    """With its own gid if it has one, else with the user's uid."""
    accounts = numbered(
        """
        users = [{ name = "bob", uid = 1500 }, { name = "eve" }]
        groups = [{ name = "bob" }, { name = "eve", gid = 77 }]
        """
    )
    assert (accounts.gid_of("bob"), accounts.gid_of("eve")) == (1500, 77)
    assert accounts.uid_of("eve") == 1000


def test_members_are_those_that_either_side_declares() -> None:
    """`groups` of a user and `members` of a group say the same; each name comes once."""
    accounts = numbered(
        """
        users = [{ name = "bob", groups = ["www"] }, { name = "eve" }]
        groups = [{ name = "www", gid = 80, members = ["eve", "bob"] }]
        """
    )
    (www,) = [group for group in accounts.groups if group.name == "www"]
    assert www.members == ("eve", "bob")


def test_every_tree_has_root() -> None:
    """Files belong to root even where no profile declares it; nobody can log in as it."""
    accounts = number(Manifest())
    assert (accounts.uid_of("root"), accounts.gid_of("root")) == (0, 0)
    assert [(it.name, it.password) for it in accounts.users] == [("root", "*")]


def test_uid_base_moves_every_number_but_roots() -> None:
    """DESIGN 7.9: two domains with their own ranges share no uid and no gid."""
    text = """
    users = [{ name = "bob" }, { name = "nobody", uid = 65534, group = "nogroup" }]
    groups = [{ name = "nogroup", gid = 65534 }, { name = "www", gid = 33 }]
    """
    accounts = numbered(f"uid_base = 1000000\n{text}")
    assert accounts.uid_of("root") == 0
    assert accounts.uid_of("bob") == 1001000
    assert accounts.uid_of("nobody") == accounts.gid_of("nogroup") == 1065534
    assert accounts.gid_of("www") == 1000033
    assert numbered(text).uid_of("bob") == 1000


def test_with_uid_base_no_number_reaches_into_the_next_range() -> None:
    """A domain owns 65536 ids; one beyond would be a neighbour's."""
    manifest = Manifest(users=(user("bob", SPAN, "root"),), uid_base=SPAN)
    (problem,) = problems(manifest)
    assert problem.startswith(
        "site.toml:1: cannot use 65536 as uid of 'bob': with uid_base ids must"
    )


def test_letters_put_homes_below_their_first_letter() -> None:
    """The HOWTO's /home/c/crc; names that begin with no letter stay flat."""
    accounts = numbered(
        """
        users = [{ name = "crc" }, { name = "_ftp" }, { name = "Ann" }, { name = "eve", home = "/srv/eve" }]
        home = { layout = "letters" }
        """
    )
    homes = {it.name: it.home for it in accounts.users}
    assert homes == {
        "root": "/root",
        "crc": "/home/c/crc",
        "_ftp": "/home/_ftp",
        "Ann": "/home/a/Ann",
        "eve": "/srv/eve",
    }


def test_every_conflict_is_told_at_its_line() -> None:
    """All at once, each with the line that caused it and what was meant."""
    manifest = Manifest(
        users=(
            user("bob", 1000, "bob", 1),
            user("eve", 1000, "bobs", 2),
            user("toor", 0, "root", 3),
            user("bob", 7, "bob", 4),
        ),
        groups=(
            Group("bob", 1000, ("evee",), at(5)),
            Group("www", 1000, (), at(6)),
        ),
    )
    assert problems(manifest) == [
        "site.toml:4: cannot declare user 'bob' twice: site.toml:1 has it",
        "site.toml:2: cannot give uid 1000 to 'eve': 'bob' has it",
        "site.toml:3: cannot use 0 as uid of 'toor': 0 is root, and root is 0",
        "site.toml:6: cannot give gid 1000 to 'www': 'bob' has it",
        "site.toml:2: unknown group 'bobs': `groups` declares none; did you mean 'bob'?",
        "site.toml:5: unknown user 'evee': `users` declares none; did you mean 'eve'?",
    ]


def test_a_name_that_is_not_declared_has_no_number() -> None:
    """The caller's default, or KeyError: never a number of the host's."""
    accounts = number(Manifest())
    assert accounts.uid_of("nobody", 65534) == 65534
    assert accounts.gid_of("adm", -1) == -1
    with pytest.raises(KeyError):
        accounts.uid_of("nobody")
    with pytest.raises(KeyError):
        accounts.gid_of("adm")


NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), unique=True, max_size=20)


@given(names=NAMES, data=st.data())
def test_no_two_accounts_ever_share_a_number(names: list[str], data: st.DataObject) -> None:
    """Whatever is declared and whatever is left open; and each user's gid is its group's."""
    names = [name for name in names if name != "root"]
    free = data.draw(st.lists(st.integers(1, 1100), unique=True, min_size=len(names)))
    users = tuple(
        user(name, data.draw(st.sampled_from([None, uid])))
        for name, uid in zip(names, free, strict=False)
    )
    accounts = number(Manifest(users=users, uid_base=data.draw(st.sampled_from([0, 100000]))))
    uids = [it.uid for it in accounts.users]
    gids = [it.gid for it in accounts.groups]
    assert len(set(uids)) == len(uids) == len(names) + 1
    assert len(set(gids)) == len(gids)
    assert all(accounts.gid_of(it.group) == it.gid for it in accounts.users)
    assert uids == sorted(uids)
