"""The sudoers rule of the README with the real sudo: one command in one domain, and nothing more.

In a mount namespace of its own, on a copy of /etc: the machine's users and rules stay as they are.
"""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.handmade import REPOSITORY, VIRT, tree

pytestmark = pytest.mark.usefixtures("as_root")

USER, UID = "webmaster", 54321
ENTER = """
set -e
mount --make-rprivate /
mount --bind "$1" /etc
mount --bind "$2" /usr/local/bin
shift 2
exec setpriv --reuid={uid} --regid={uid} --clear-groups --reset-env -- "$@"
"""
SAY = '#!/bin/sh\nprintf "%s" "${0##*/}"; for word; do printf " [%s]" "$word"; done; echo " $(id -u)"\n'
ALLOWED = ("exec", "--domain", "domain1.com", "--", "passwd", "bob")


def rule() -> str:
    """The sudoers file as the README has it, for a user and a domain of ours."""
    text = (REPOSITORY / "README.md").read_text()
    (found,) = re.findall(r"^```sudoers\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(found)


@dataclass(frozen=True, slots=True)
class Account:
    """One user who is nobody but for that rule."""

    etc: Path
    bin: Path
    folder: Path

    def sudo(
        self,
        *words: str,
        flags: tuple[str, ...] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Call `sudo -n FLAGS virt WORDS` as that user."""
        given = [f"{name}={value}" for name, value in (env or {}).items()]
        call = ["env", *given, "sudo", "-n", *flags, "/usr/local/bin/virt", *words]
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", ENTER.format(uid=UID), "sh",
             str(self.etc), str(self.bin), *call],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd or "/",
            start_new_session=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    """A copy of /etc with a user and the rule; virt in a folder that root owns; two domains."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("sudo") is None:
        pytest.skip("needs sudo")
    folder = tmp_path_factory.mktemp("sudo")
    etc, bin_, root = folder / "etc", folder / "bin", folder / "virtual"
    subprocess.run(["cp", "-a", "/etc", etc], check=True)
    with (etc / "passwd").open("a") as passwd, (etc / "shadow").open("a") as shadow:
        passwd.write(f"{USER}:x:{UID}:{UID}::/:/bin/sh\n")
        shadow.write(f"{USER}:*:19000:0:99999:7:::\n")
    (etc / "sudoers").write_text("Defaults env_reset\n@includedir /etc/sudoers.d\n")
    (etc / "sudoers.d/virt").write_text(rule())
    for file in ("sudoers", "sudoers.d/virt"):
        (etc / file).chmod(0o440)
    (etc / "virttools").mkdir(exist_ok=True)
    (etc / "virttools/virt.toml").write_text(f'root = "{root}"\n')
    bin_.mkdir()
    (bin_ / "virt").symlink_to(VIRT)
    for name in ("domain1.com", "domain2.com"):
        domain = tree(root / name, "sh", "id")
        for program in ("passwd", "passwd bob", "vi"):
            (domain / "bin" / program).write_text(SAY)
            (domain / "bin" / program).chmod(0o755)
    return Account(etc, bin_, folder)


def test_the_rule_is_well_formed(account: Account) -> None:
    """As visudo sees it."""
    file = str(account.etc / "sudoers.d/virt")
    done = subprocess.run(["visudo", "-cf", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_one_command_is_allowed(account: Account) -> None:
    """For any account of that domain; it runs as root of the domain."""
    for user in ("bob", "a", "www-data", "x_1", "root"):
        done = account.sudo(*ALLOWED[:-1], user)
        assert (done.returncode, done.stdout) == (0, f"passwd [{user}] 0\n"), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("exec",),
        ("exec", "--domain", "domain1.com", "--", "passwd"),
        ("exec", "--domain", "domain2.com", "--", "passwd", "bob"),
        ("exec", "--domain", "domain1xcom", "--", "passwd", "bob"),
        ("exec", "--domain", "domain1.com", "passwd", "bob"),
        ("exec", "--domain=domain1.com", "--", "passwd", "bob"),
        ("exec", "--domain", "domain1.com", "--chroot", "--", "passwd", "bob"),
        ("exec", "--chroot", "--domain", "domain1.com", "--", "passwd", "bob"),
        ("exec", "--domain", "domain1.com", "--domain", "domain2.com", "--", "passwd", "bob"),
        ("exec", "--domain", "domain1.com", "--bind", "/:/mnt", "--", "passwd", "bob"),
        ("exec", "--domain", "domain1.com", "--", "vi", "bob"),
        ("exec", "--domain", "domain1.com", "--", "/bin/passwd", "bob"),
        ("exec", "--domain", "domain1.com", "--", "passwd", "-d", "bob"),
        ("exec", "--domain", "domain1.com", "--", "passwd", "--root", "/x", "bob"),
        ("exec", "--domain", "domain1.com", "--", "passwd", "bob", "--root", "/x"),
        ("exec", "--domain", "domain1.com", "--", "passwd", "bob", "eve"),
        ("exec", "--domain", "domain1.com", "--", "passwd", "--delete"),
        ("exec", "--domain", "domain1.com", "--", "passwd", "bob\nvi"),
        ("exec", "--domain", "domain1.com", "--", "passwd", "bob;vi"),
        ("exec", "--domain", "domain1.com", "--", "passwd", ""),
        ("--root", "/tmp", "exec", "--domain", "domain1.com", "--", "passwd", "bob"),
        ("exec", "--all", "--", "passwd", "bob"),
        ("shell", "domain1.com"),
        ("remove", "--yes", "domain1.com"),
        ("create", "exec", "--domain", "domain1.com", "--", "passwd", "bob"),
    ],
)
def test_nothing_else_is(account: Account, words: tuple[str, ...]) -> None:
    """No other domain, command, option, word or order: sudo refuses before virt is started."""
    done = account.sudo(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "password is required" in done.stderr or "not allowed" in done.stderr


def test_words_that_are_glued_together_run_nothing_else(account: Account) -> None:
    """Sudo joins all words by blanks before it compares: each other way to part them is harmless.

    The only one that runs anything runs `passwd bob`, one word, in that same domain.
    """
    ran = {}
    for gaps in itertools.product(" \0", repeat=len(ALLOWED) - 1):
        joined = "".join(map("".join, itertools.zip_longest(ALLOWED, gaps, fillvalue="")))
        words = tuple(joined.split("\0"))
        done = account.sudo(*words)
        if done.stdout:
            ran[words] = done.stdout
    assert ran == {
        ALLOWED: "passwd [bob] 0\n",
        (*ALLOWED[:-2], "passwd bob"): "passwd bob 0\n",
    }


def test_the_environment_does_not_count(account: Account) -> None:
    """VIRT_ROOT, VIRT_DOMAIN and what an interpreter or loader reads: dropped, or refused where asked for."""
    other = account.folder / "other"
    other.mkdir()
    tree(other / "domain1.com", "sh")
    env = {
        "VIRT_ROOT": str(other),
        "VIRT_DOMAIN": "domain2.com",
        "VIRT_DEBUG": "1",
        "PYTHONPATH": str(other),
        "LD_PRELOAD": "",
        "BASH_ENV": str(other),
    }
    done = account.sudo(*ALLOWED, env=env)
    assert (done.returncode, done.stdout) == (0, "passwd [bob] 0\n")
    for flags in (
        ("-E",),
        ("--preserve-env=VIRT_ROOT",),
        (f"VIRT_ROOT={other}",),
        ("-R", str(other)),
        ("-D", str(other)),
        ("-u", "daemon"),
        ("-g", "daemon"),
        ("-s",),
    ):
        done = account.sudo(*ALLOWED, flags=flags, env=env)
        assert (done.returncode, done.stdout) == (1, ""), flags


def test_the_working_directory_does_not_count(account: Account, tmp_path: Path) -> None:
    """A file .virt-domain of root's in a folder the user chose changes nothing."""
    tmp_path.chmod(0o755)
    (tmp_path / ".virt-domain").write_text("domain2.com\n")
    done = account.sudo(*ALLOWED, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "passwd [bob] 0\n")
