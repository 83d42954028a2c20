"""`virt create` as an administrator meets it: whole trees or none, and a clear sentence for every mistake."""

import os
import random
import signal
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system import ground
from tests.system.calls import VIRT, Virt
from virttools import dispatch

SMALL = """
binaries = ["sh", "cat"]
directories = ["/etc", { path = "/tmp", mode = 0o1777 }]
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A manifest that builds in a moment."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return str(file)


def test_a_domain_is_created_listed_shown_explained_and_removed(virt: Virt) -> None:
    """The whole life of a domain, by the commands of the README."""
    assert "created domain1.com" in virt.good("create", "domain1.com", "--ip", "192.0.2.1")
    assert virt.good("list") == "domain1.com\t192.0.2.1\tbase\n"
    assert "192.0.2.1" in virt.good("show", "domain1.com")
    told = virt.good("why", "domain1.com", "/lib64/ld-linux-x86-64.so.2")
    assert "profiles/base.toml:" in told
    assert virt.good("exec", "--domain", "domain1.com", "--", "cat", "/etc/hostname") == "domain1\n"
    virt.good("remove", "--yes", "domain1.com")
    assert virt.good("list") == ""
    assert not virt.tree("domain1.com").exists()


def test_where_no_domain_was_ever_made_there_is_nothing_to_list(virt: Virt) -> None:
    """Status 0 and an empty result from every command that lists, as `virt list` has it."""
    for words in (("list",), ("services",), ("log", "status")):
        assert virt.good(*words) == ""
    assert [line for line in virt.good("render", "inetd").splitlines() if line[:1] != "#"] == []
    assert virt("log", "status", "domain1.com").status == 68
    assert not virt.tree("domain1.com").parent.joinpath(".virt").exists()


def test_the_status_of_a_command_inside_is_its_own(virt: Virt, small: str) -> None:
    """0, 1, 42, 126, 127 and 125 as env(1) has them."""
    virt.good("create", "domain1.com", "-m", small)
    for status in (0, 1, 42):
        assert (
            virt("exec", "--domain", "domain1.com", "--", "sh", "-c", f"exit {status}").status
            == status
        )
    assert virt("exec", "--domain", "domain1.com", "--", "nothing-here").status == 127
    assert virt("exec", "--domain", "domain1.com", "--", "/etc").status == 126
    assert virt("exec", "--domain", "nowhere.com", "--", "true").status == 125


def test_two_builds_give_equal_records(virt: Virt) -> None:
    """Whatever the umask, time zone, locale and hash seed."""
    virt.good("create", "domain1.com", "-p", "base", "-p", "login")
    first = virt.record("domain1.com")
    virt.good("remove", "--yes", "domain1.com")
    env = {
        "TZ": "Asia/Tokyo",
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "PYTHONHASHSEED": "7",
    }
    old = os.umask(0o077)
    try:
        done = virt("create", "domain1.com", "-p", "base", "-p", "login", "--link", "auto", env=env)
    finally:
        os.umask(old)
    assert done.status == 0, done.err
    second = virt.record("domain1.com")
    assert first.partition(b'"entries"')[2] == second.partition(b'"entries"')[2]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("create", "../etc"), 65, "cannot use"),
        (("create", "-domain"), 2, ""),
        (("create", ".virt"), 65, "cannot use"),
        (("create", "lost+found"), 65, "cannot use"),
        (("create", "a..b"), 65, "cannot use"),
        (("create", "domain1.com", "--ip", "999.1.1.1"), 65, "999.1.1.1"),
        (("create", "domain1.com", "-p", "bse"), 65, "did you mean"),
        (("create", "domain1.com", "-m", "/nowhere.toml"), 65, "/nowhere.toml"),
        (("create",), 2, "none is named"),
        (("create", "domain1.com", "--link", "soft"), 65, "soft"),
        (("creat", "domain1.com"), 2, "cannot understand"),
        (("show", "nowhere.com"), 68, "there are no domains yet"),
        (("remove", "--yes", "nowhere.com"), 68, "there are no domains yet"),
        (("why", "nowhere.com", "/bin/sh"), 68, "there are no domains yet"),
    ],
)
def test_bad_input_gets_a_sentence_a_status_and_makes_nothing(
    virt: Virt, words: tuple[str, ...], status: int, told: str
) -> None:
    """No traceback, no half-made tree."""
    done = virt(*words)
    assert (done.status, "Traceback" in done.err) == (status, False), done.err
    assert done.err.startswith("virt: ")
    assert told in done.err
    assert [name for name in os.listdir(virt.root) if name != ".virt"] == []


@pytest.mark.parametrize("words", [("show",), ("remove", "--yes"), ("scrub",)])
def test_an_unknown_domain_is_answered_by_the_one_that_may_be_meant(
    virt: Virt, small: str, words: tuple[str, ...]
) -> None:
    """68, and a hint."""
    virt.good("create", "domain1.com", "-m", small)
    done = virt(*words, "domian1.com")
    assert (done.status, "hint: did you mean domain1.com?" in done.err) == (68, True), done.err


def test_every_problem_of_a_manifest_is_told_at_once_with_its_line(
    virt: Virt, tmp_path: Path
) -> None:
    """An unknown key, a bad mode and a missing program: three lines, each file:line."""
    file = tmp_path / "bad.toml"
    file.write_text(
        'binares = ["sh"]\ndirectories = [{ path = "/x", mode = 755 }]\nlink = "soft"\n'
    )
    done = virt("create", "domain1.com", "-m", str(file))
    assert done.status == 65
    assert f"{file}:1: " in done.err
    assert "binaries" in done.err
    assert f"{file}:2: " in done.err
    assert f"{file}:3: " in done.err


def test_what_the_host_lacks_is_named_and_nothing_is_made(virt: Virt, tmp_path: Path) -> None:
    """Others drop unknown programs in silence; we name each with its line."""
    file = tmp_path / "lacking.toml"
    file.write_text('binaries = ["sh", "no-such-program"]\nfiles = ["/no/such/file"]\n')
    done = virt("create", "domain1.com", "-m", str(file))
    assert done.status == 69
    assert f"{file}:1: " in done.err
    assert "no-such-program" in done.err
    assert f"{file}:2: " in done.err
    assert virt.good("list") == ""


def test_an_existing_tree_is_left_as_it_is(virt: Virt, small: str) -> None:
    """73, and not a byte of it changes."""
    virt.good("create", "domain1.com", "-m", small)
    (virt.tree("domain1.com") / "tmp" / "mail").write_text("mine")
    done = virt("create", "domain1.com", "-m", small)
    assert (done.status, (virt.tree("domain1.com") / "tmp" / "mail").read_text()) == (73, "mine")


def test_a_folder_of_that_name_that_is_no_domain_is_not_touched(virt: Virt, small: str) -> None:
    """Somebody's own folder below the root is not ours to replace."""
    virt.tree("domain1.com").mkdir()
    (virt.tree("domain1.com") / "mine").write_text("mine")
    done = virt("create", "domain1.com", "-m", small)
    assert done.status == 73, done.err
    assert (virt.tree("domain1.com") / "mine").read_text() == "mine"


def test_no_address_belongs_to_two_domains(virt: Virt, small: str) -> None:
    """The second one is refused, and told who has it."""
    virt.good("create", "domain1.com", "-m", small, "--ip", "192.0.2.1")
    done = virt("create", "domain2.com", "-m", small, "--ip", "192.0.2.1")
    assert done.status == 73
    assert "domain1.com has it" in done.err


def test_no_range_of_ids_belongs_to_two_domains(virt: Virt, tmp_path: Path) -> None:
    """With `uid_base` bob here is not bob there, to the kernel too; a free base is named."""
    for number, base in ((1, 100000), (2, 150000), (3, 165536)):
        (tmp_path / f"{number}.toml").write_text(f'binaries = ["sh"]\nuid_base = {base}\n')
    virt.good("create", "domain1.com", "-m", str(tmp_path / "1.toml"))
    done = virt("create", "domain2.com", "-m", str(tmp_path / "2.toml"))
    assert (done.status, 'uid_base = "auto" takes free ones' in done.err) == (73, True), done.err
    virt.good("create", "domain3.com", "-m", str(tmp_path / "3.toml"))


def test_a_root_that_others_can_write_is_refused(virt: Virt, small: str) -> None:
    """77, naming the folder and its mode."""
    virt.root.chmod(0o777)
    done = virt("create", "domain1.com", "-m", small)
    virt.root.chmod(0o755)
    assert done.status == 77
    assert str(virt.root) in done.err
    assert "0777" in done.err


def test_a_full_disk_leaves_nothing_behind(virt: Virt, tmp_path: Path) -> None:
    """74, the staging folder swept, and the next create on a larger disk succeeds."""
    ground.leave_mounts()
    mounted = tmp_path / "disk"
    mounted.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", mounted], check=True)
    try:
        here = Virt(mounted)
        done = here("create", "domain1.com")
        assert done.status == 74, done.err
        assert "No space left" in done.err
        assert here.good("list") == ""
        assert os.listdir(mounted / ".virt" / "staging") == []
        subprocess.run(["mount", "-o", "remount,size=200m", mounted], check=True)
        here.good("create", "domain1.com")
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_without_root_a_sentence_says_so(virt: Virt, small: str) -> None:
    """An ordinary user is told what is missing; nothing is made."""
    command = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        # The interpreter may lie where only root can look.
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
        str(VIRT),
        "create",
        "domain1.com",
    ]
    done = subprocess.run(
        command, env=virt.environment(), capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 77, done.stderr
    assert "Traceback" not in done.stderr
    assert not virt.tree("domain1.com").exists()


def test_a_planted_secret_never_reaches_a_tree_and_dry_run_names_it(
    virt: Virt, tmp_path: Path
) -> None:
    """Host keys, a TLS key, a .netrc and another domain's name: scrubbed, and named beforehand."""
    virt.good("create", "other-domain.example")
    source = tmp_path / "source"
    source.mkdir()
    body = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"] * 4)
    pem = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"
    planted = {
        "ssh_host_rsa_key": ("/etc/ssh/ssh_host_rsa_key", pem),
        "shop.pem": ("/etc/ssl/private/shop.pem", pem),
        "netrc": ("/root/.netrc", "machine mail.example login root password geheim\n"),
        "hosts": ("/etc/hosts.local", "192.0.2.9 other-domain.example\n"),
    }
    lines = []
    for name, (target, text) in planted.items():
        (source / name).write_text(text)
        lines.append(f'files = [{{ from = "{source / name}", to = "{target}" }}]')
    manifest = tmp_path / "planted.toml"
    inner = ", ".join(line.removeprefix("files = [").removesuffix("]") for line in lines)
    manifest.write_text(f'profiles = ["base"]\nfiles = [{inner}]\n')
    foreseen = virt("create", "domain1.com", "-m", str(manifest), "--dry-run")
    for target, _ in planted.values():
        assert any(
            line.startswith(("scrub", "refuse")) and target in line
            for line in foreseen.out.splitlines()
        ), f"{target} is not named in:\n{foreseen.out[-3000:]}{foreseen.err}"
    assert not virt.tree("domain1.com").exists()
    done = virt("create", "domain1.com", "-m", str(manifest))
    if done.status == 0:
        everything = subprocess.run(
            [
                "grep",
                "-rlE",
                "other-domain.example|geheim|BEGIN PRIVATE KEY",
                virt.tree("domain1.com"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert everything.stdout == ""
    else:
        assert (done.status, virt.tree("domain1.com").exists()) == (65, False)


@pytest.mark.parametrize("seed", range(4))
def test_random_kills_leave_whole_domains_only(virt: Virt, small: str, seed: int) -> None:
    """50 kills at random moments of create: `virt list` shows whole domains, and the next create succeeds."""
    chance = random.Random(seed)
    words = ["virt", "--quiet", "--root", str(virt.root), "create", "-m", small]
    assert dispatch.main([*words, "first.com"]) == 0  # what is forked from here has all loaded
    began = time.monotonic()
    assert dispatch.main([*words, "second.com"]) == 0
    longest = 1.2 * (time.monotonic() - began)
    for number in range(50):
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                dispatch.main([*words, f"domain{number}.com"])
            os._exit(1)
        time.sleep(chance.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    listed = [line.split("\t")[0] for line in virt.good("list").splitlines()]
    for name in listed:
        assert _is_whole(virt, name)
    trees = {name for name in os.listdir(virt.root) if name != ".virt"}
    virt.good("create", "after.com", "-m", small)
    assert os.listdir(virt.root / ".virt" / "staging") == []
    assert trees <= {line.split("\t")[0] for line in virt.good("list").splitlines()}


def _is_whole(virt: Virt, name: str) -> bool:
    """Whether the command inside runs and every recorded path is there."""
    import json

    entries = json.loads(virt.record(name))["entries"]
    there = all(os.path.lexists(f"{virt.tree(name)}{entry['path']}") for entry in entries)
    return there and virt("exec", "--domain", name, "--", "sh", "-c", "exit 7").status == 7


def test_set_id_bits_go_unless_declared(virt: Virt, tmp_path: Path) -> None:
    """`setuid` names what keeps them."""
    file = tmp_path / "setuid.toml"
    file.write_text('binaries = ["passwd", "su"]\nsetuid = ["/usr/bin/passwd"]\n')
    virt.good("create", "domain1.com", "-m", str(file))
    modes = [
        stat.S_IMODE((virt.tree("domain1.com") / "usr/bin" / name).stat().st_mode)
        for name in ("passwd", "su")
    ]
    assert modes == [0o4755, 0o755]


def test_many_domains_come_in_one_call_and_share_their_files(virt: Virt) -> None:
    """Forty at once, by all cores; a program of two domains is one inode."""
    names = [f"d{number}.example" for number in range(40)]
    virt.good("create", *names)
    assert [line.split("\t")[0] for line in virt.good("list").splitlines()] == sorted(names)
    inodes = {(virt.tree(name) / "usr/bin/bash").stat().st_ino for name in names}
    assert len(inodes) == 1
    assert inodes != {os.stat("/usr/bin/bash").st_ino}
    assert len({(virt.tree(name) / "etc/passwd").stat().st_ino for name in names}) == len(names)
