"""Accounts, environment and options of what runs inside a tree: pure values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.enter import accounts, environment, inside, options
from virttools.errors import BadName, EnterError
from virttools.manifest import names

PASSWD = b"""\
root:x:0:0:root:/root:/bin/bash
+::::::
broken:x:12
bad:x:-1:0::/:/bin/sh
huge:x:4294967295:0::/:/bin/sh
bob:x:1001:1002:Bob:/home/b/bob:
1001:x:2000:2000::/:/bin/sh
bob:x:0:0:later:/:/bin/sh
nul:x:5:5::/home\0:/bin/sh
"""
GROUP = b"root:x:0:\nwww:x:33:bob,ann\nbroken\nmail:x:8:ann\nftp:x:x:bob\nusers:x:100:ann,bob\n"


def test_the_first_entry_of_a_name_counts() -> None:
    """As in libc; groups hold the primary one, unreadable lines are passed over."""
    bob = accounts.find(PASSWD, GROUP, b"bob")
    assert bob is not None
    assert (bob.uid, bob.gid, bob.groups, bob.home, bob.shell) == (
        1001,
        1002,
        [33, 100, 1002],
        b"/home/b/bob",
        b"/bin/sh",
    )


def test_a_name_of_digits_comes_before_a_number() -> None:
    """As in chown(1): a user called 1001 is meant before uid 1001."""
    named = accounts.find(PASSWD, GROUP, b"1001")
    numbered = accounts.find(PASSWD, GROUP, b"1002")
    assert named is not None
    assert (named.uid, numbered) == (2000, None)


@pytest.mark.parametrize("wanted", [b"bad", b"huge", b"broken", b"+", b"", b"x", b"nul"])
def test_lines_that_are_no_entries_are_nobody(wanted: bytes) -> None:
    """Neither a negative id nor (uid_t)-1 nor half a line makes a user."""
    assert accounts.find(PASSWD, GROUP, wanted) is None


def test_root_needs_no_passwd() -> None:
    """Uid 0 can always enter, whatever the tree's files say."""
    for text in (b"", b"root:x:5:5::/:/bin/sh\n", b"\0" * 100):
        root = accounts.root(text, GROUP)
        assert (root.uid, root.gid, root.home, root.shell) == (0, 0, b"/root", b"/bin/sh")
    assert accounts.root(PASSWD, GROUP).shell == b"/bin/bash"


@given(st.binary(), st.binary(), st.binary())
def test_any_bytes_are_read(passwd: bytes, group: bytes, wanted: bytes) -> None:
    """A hostile passwd or group gives an account with ids the kernel takes, or none."""
    found = accounts.find(passwd + b"\nx:x:0:0::/:/\n" + passwd, group, wanted)
    for number in (found.uid, found.gid, *found.groups) if found else ():
        assert 0 <= number < 2**32 - 1


def test_the_environment_holds_nothing_else() -> None:
    """TERM, LANG, LC_* of the caller; the account's; PATH; what is named wins."""
    given_ = {b"TERM": b"vt", b"LC_TIME": b"C", b"LD_PRELOAD": b"x", b"HOME": b"/h", b"PATH": b"."}
    root = accounts.root(b"", b"")
    assert environment.build(given_, root, [("A", "1"), ("SHELL", "/s")]) == {
        b"TERM": b"vt",
        b"LC_TIME": b"C",
        b"HOME": b"/root",
        b"USER": b"root",
        b"LOGNAME": b"root",
        b"SHELL": b"/s",
        b"PATH": environment.PATH.encode(),
        b"A": b"1",
    }


def test_the_interpreters_own_locale_is_not_the_callers() -> None:
    """LC_CTYPE stays only if the caller's environment had it."""
    environ = {b"LC_CTYPE": b"C.UTF-8", b"A": b"1"}
    assert environment.given(environ, b"A=1\0") == {b"A": b"1"}
    assert environment.given(environ, b"A=1\0LC_CTYPE=C.UTF-8\0") == environ


def test_options_end_where_the_command_begins() -> None:
    """The first word that is no option is the command; both spellings of values are read."""
    read = options.read(
        ["--domain=a.com", "--user", "bob", "--env", "A=", "--cwd", "x", "ls", "--user"]
    )
    assert (read.domain, read.user, read.env, read.cwd, read.argv) == (
        "a.com",
        "bob",
        [("A", "")],
        "/x",
        ["ls", "--user"],
    )


@pytest.mark.parametrize("words", [[], ["--"], ["--domain"], ["-x", "ls"], ["--env", "=1", "ls"]])
def test_wrong_options_are_125(words: list[str]) -> None:
    """Whatever is wrong, the status cannot be taken for the command's."""
    with pytest.raises(EnterError) as told:
        options.read(words)
    assert told.value.exit_code == 125


@given(st.from_regex(r"[a-z0-9-]{1,8}(\.[a-z0-9-]{1,8}){0,3}", fullmatch=True))
def test_domain_names_are_those_that_create_takes(name: str) -> None:
    """The quick check on the fast way lets every name through that create takes."""
    try:
        normal = names.domain(name)
    except BadName:
        return
    assert normal == name
    assert inside.is_domain(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".virt", "a..b", "-a", "a-", "a/b", "lost+found", "A", "a_b"]
)
def test_other_folders_are_no_domains(name: str) -> None:
    """What /virtual may hold besides trees is never listed or entered."""
    assert not inside.is_domain(name)
