"""The HOWTO's seven symlinks, on a terminal, in two domains that each have a bob of their own."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.system.calls import Virt
from tests.system.terminal import Terminal, running

ONE, TWO = "domain1.com", "domain2.org"
SEVEN = ("passwd", "adduser", "deluser", "vi", "mailq", "newaliases", "smbstatus")
ACCOUNTS = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow")
HOSTS_OWN = (*ACCOUNTS, "/etc/aliases", "/etc/subuid", "/etc/subgid")

MANIFEST = """
profiles = ["base", "login"]
users = [{{ name = "bob", gecos = "Bob" }}]
files = [
  {{ from = "{programs}/mailq", to = "/usr/local/bin/mailq", mode = 0o755 }},
  {{ from = "{programs}/newaliases", to = "/usr/local/bin/newaliases", mode = 0o755 }},
  {{ from = "{programs}/smbstatus", to = "/usr/local/bin/smbstatus", mode = 0o755 }},
  {{ from = "{programs}/aliases", to = "/etc/aliases" }},
]
"""
PROGRAMS = {
    "mailq": '#!/bin/sh\necho "queue of $(hostname): empty"\n',
    "newaliases": '#!/bin/sh\nsort /etc/aliases >/etc/aliases.db\necho "$(wc -l </etc/aliases) aliases"\n',
    "smbstatus": "#!/bin/sh\nprintf 'Samba on %s' \"$(hostname)\"\nprintf ' [%s]' \"$@\"\necho\n",
    "aliases": "root: bob\nbob: bob@example.org\n",
}
"""What stands for a mail server and Samba, which need not be on this machine."""

Seen = dict[str, tuple[int, int, int, str]]


class Hosting:
    """Two domains, the seven symlinks, and somebody who types."""

    def __init__(self, virt: Virt, bin_: Path) -> None:
        self.virt = virt
        self.bin = bin_

    def on_terminal(self, *words: str) -> AbstractContextManager[Terminal]:
        """Call a symlink with PATH as a shell would, at a terminal."""
        env = self.virt.environment({"PATH": f"{self.bin}:{os.environ['PATH']}"})
        return running([str(self.bin / words[0]), *words[1:]], env)

    def pick(self, terminal: Terminal, domain: str) -> None:
        terminal.expect("Domain for ")
        terminal.expect(TWO)
        terminal.type(f"{domain}\r")

    def seen(self, domain: str) -> Seen:
        """Every path of a tree: mode, owner, and a digest of what is in it."""
        tree = self.virt.tree(domain)
        return {f"/{path.relative_to(tree)}": look(path) for path in sorted(tree.rglob("*"))}


def look(path: Path) -> tuple[int, int, int, str]:
    status = path.lstat()
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return status.st_mode, status.st_uid, status.st_gid, content


def host() -> Seen:
    return {path: look(Path(path)) for path in HOSTS_OWN if os.path.lexists(path)}


def changed(before: Seen, after: Seen) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    """Both domains, by `virt create`, and the links, by `virt link`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("virtual")
    root.chmod(0o755)
    folder = tmp_path_factory.mktemp("manifest")
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    (folder / "hosting.toml").write_text(MANIFEST.format(programs=folder))
    virt = Virt(root)
    virt.good("create", ONE, TWO, "-m", str(folder / "hosting.toml"))
    bin_ = tmp_path_factory.mktemp("bin")
    virt.good("link", *SEVEN, "--bindir", str(bin_))
    yield Hosting(virt, bin_)
    virt.good("remove", "--yes", ONE, TWO)


@pytest.fixture
def hosting(built: Hosting) -> Iterator[Hosting]:
    """Afterwards the second domain and the host are what they were."""
    before = built.seen(TWO), host()
    yield built
    assert (built.seen(TWO), host()) == before


def test_virtpasswd_changes_one_bobs_password(hosting: Hosting) -> None:
    """As the HOWTO has it: pick domain1.com, change bob's password there and nowhere else."""
    before = hosting.seen(ONE)
    with hosting.on_terminal("virtpasswd", "bob") as terminal:
        hosting.pick(terminal, ONE)
        for question in ("New password: ", "Retype new password: "):
            terminal.expect(question)
            terminal.type("corr3ct-horse\r")
        terminal.expect("password updated successfully")
        assert terminal.end() == 0
    assert "corr3ct" not in terminal.shown
    differ = changed(before, hosting.seen(ONE))
    assert "/etc/shadow" in differ
    assert differ <= {"/etc/shadow", "/etc/shadow-", "/etc/.pwd.lock"}
    shadows = [(hosting.virt.tree(name) / "etc/shadow").read_text() for name in (ONE, TWO)]
    assert ["\nbob:$y$" in text for text in shadows] == [True, False]


def test_virtadduser_and_virtdeluser_add_and_remove_one(hosting: Hosting) -> None:
    """A user of the picked domain, with a home; and the last one is picked again by a hyphen."""
    if not (hosting.virt.tree(ONE) / "usr/sbin/adduser").exists():
        pytest.skip("needs adduser")
    before = hosting.seen(ONE)
    words = ("--disabled-password", "--gecos", "Carl,,,", "carl")
    with hosting.on_terminal("virtadduser", *words) as terminal:
        hosting.pick(terminal, "domain1")
        assert terminal.end() == 0
    differ = changed(before, hosting.seen(ONE))
    assert set(ACCOUNTS) <= differ
    elsewhere = {path for path in differ if not path.startswith(("/etc/", "/home/carl"))}
    assert elsewhere <= {"/run/adduser"}  # its lock
    assert (hosting.virt.tree(ONE) / "home/carl").is_dir()
    with hosting.on_terminal("virtdeluser", "--remove-home", "carl") as terminal:
        hosting.pick(terminal, "1")
        assert terminal.end() == 0
    with hosting.on_terminal("virtdeluser", "carl") as terminal:
        hosting.pick(terminal, "-")
        assert f"(-: {ONE})" in terminal.shown
        assert terminal.end() not in (0, 125, 127, 130)
    differ = changed(before, hosting.seen(ONE))
    assert not [path for path in differ if path in ACCOUNTS or path.startswith("/home/")]


def test_virtvi_edits_one_file(hosting: Hosting) -> None:
    """A screen program: it sees the terminal's size, and what is written is the domain's."""
    if not (hosting.virt.tree(ONE) / "usr/bin/vi").exists():
        pytest.skip("needs vi")
    before = hosting.seen(ONE)
    with hosting.on_terminal("virtvi", "/home/bob/letter") as terminal:
        hosting.pick(terminal, ONE)
        terminal.expect("letter")
        terminal.type("ihello from vi\x1b:wq\r")
        assert terminal.end() == 0
    assert (hosting.virt.tree(ONE) / "home/bob/letter").read_text() == "hello from vi\n"
    differ = {path for path in changed(before, hosting.seen(ONE)) if "viminfo" not in path}
    assert differ == {"/home/bob/letter"}


def test_virtmailq_shows_one_queue(hosting: Hosting) -> None:
    """And changes nothing."""
    before = hosting.seen(ONE)
    with hosting.on_terminal("virtmailq") as terminal:
        hosting.pick(terminal, ONE)
        terminal.expect("queue of domain1")
        assert terminal.end() == 0
    assert changed(before, hosting.seen(ONE)) == set()


def test_virtnewaliases_rebuilds_one_table(hosting: Hosting) -> None:
    """That of the picked domain."""
    before = hosting.seen(ONE)
    with hosting.on_terminal("virtnewaliases") as terminal:
        hosting.pick(terminal, ONE)
        terminal.expect("2 aliases")
        assert terminal.end() == 0
    assert changed(before, hosting.seen(ONE)) == {"/etc/aliases.db"}


def test_virtsmbstatus_gets_its_own_options(hosting: Hosting) -> None:
    """--help and --version are smbstatus's, and a blank in a word stays one."""
    with hosting.on_terminal("virtsmbstatus", "--help", "--version", "a b") as terminal:
        hosting.pick(terminal, ONE)
        terminal.expect("Samba on domain1")
        terminal.expect(" [--help] [--version] [a b]\n")
        assert terminal.end() == 0
