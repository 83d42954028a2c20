"""Accounts, environment and options of what runs inside a tree: pure values."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.enter import accounts, entrance, environment, inside, options, program
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


def test_a_group_is_found_by_name_before_number() -> None:
    """The first entry counts; a number that names no entry is itself; nothing else is a group."""
    found = [accounts.find_group(GROUP, wanted) for wanted in (b"www", b"8", b"ftp", b"", b"none")]
    assert found == [33, 8, None, None, None]
    assert accounts.find_group(b"12:x:40:\n", b"12") == 40


def test_a_prompt_names_user_and_domain_and_runs_nothing() -> None:
    """Shells expand what stands in PS1: a name from the tree's passwd brings no command along."""
    evil = accounts.find(b"$(reboot)`id`\\u:x:7:7::/:/bin/sh\n", b"", b"7")
    assert evil is not None
    assert environment.prompt(evil, "a.com") == b"(reboot)idu@a.com:$PWD$ "
    assert environment.prompt(accounts.root(b"", b""), "a.com") == b"root@a.com:$PWD# "


def test_options_of_containment_are_read() -> None:
    """Flags, descriptors and binds, in both spellings of values."""
    read = options.read(
        ["--bind", "/a:/b", "--bind=x:/c:ro", "--keep-fd=3", "--no-tty", "--writable", "--allow-setid", "ls"]
    )  # fmt: skip
    assert [(bind.source, bind.place, bind.is_read_only) for bind in read.binds] == [
        ("/a", "/b", False),
        ("x", "/c", True),
    ]
    assert (read.kept_fds, read.has_terminal, read.is_writable, read.allows_set_id) == (
        [3],
        False,
        True,
        True,
    )
    assert options.read(["--chroot", "--proc", "--stdin", "ls"]).is_chroot


@pytest.mark.parametrize(
    "words",
    [
        ["--bind", "/a", "ls"],
        ["--bind", "/a:b", "ls"],
        ["--bind", ":/b", "ls"],
        ["--bind", "/a:/b:rw", "ls"],
        ["--bind", "/a:/b:ro:ro", "ls"],
        ["--keep-fd", "2", "ls"],
        ["--keep-fd", "x", "ls"],
        ["--keep-fd", "-1", "ls"],
        ["--chroot", "--bind", "/a:/b", "ls"],
        ["--chroot", "--writable", "ls"],
    ],
)
def test_wrong_options_of_containment_are_125(words: list[str]) -> None:
    """None of them passes for something it is not."""
    with pytest.raises(EnterError) as told:
        options.read(words)
    assert told.value.exit_code == 125


def test_a_shell_takes_a_domain_and_options() -> None:
    """In any order; it needs no command."""
    read = options.read_shell(["--user", "bob", "a.com", "--cwd=/x"])
    assert (read.domain, read.user, read.cwd, read.argv) == ("a.com", "bob", "/x", [])
    assert options.read_shell([]).domain is None
    assert options.read_shell(["a.com", "--help"]).is_help


def test_a_host_name_fits_the_kernel() -> None:
    """At most 64 bytes: a longer name of a domain gives its first label."""
    for name in ("a.com", "a" * 60 + ".com", "a" * 63 + ".example.com"):
        assert len(entrance.Cell(-1, name).hostname) <= 64
        assert name.startswith(entrance.Cell(-1, name).hostname.decode())


def test_a_script_is_located_as_the_kernel_would_run_it(tmp_path: Path) -> None:
    """Links are followed, `#!` with one argument, more than once; argv is what execve(2) would make."""
    for name in ("bin", "lib"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib/real").write_bytes(b"\x7fELF")
    (tmp_path / "bin/sh").symlink_to("/lib/real")
    (tmp_path / "bin/inner").write_text("#!/bin/sh\n")
    (tmp_path / "bin/outer").write_text("#! \t/bin/inner  -x  y \n")
    (tmp_path / "bin/loop").write_text("#!/bin/loop\n")
    tree_fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        plain = program.locate(tree_fd, "/bin/sh", [b"-sh", b"a"], "/")
        nested = program.locate(tree_fd, "/bin/outer", [b"outer", b"a"], "/")
        with pytest.raises(EnterError) as told:
            program.locate(tree_fd, "/bin/loop", [b"loop"], "/")
    finally:
        os.close(tree_fd)
    assert (plain.folder, plain.name, plain.argv) == (b"/lib", b"real", [b"-sh", b"a"])
    assert (nested.folder, nested.name) == (b"/lib", b"real")
    assert nested.argv == [b"/bin/sh", b"/bin/inner", b"-x  y", b"/bin/outer", b"a"]
    assert told.value.exit_code == 126
