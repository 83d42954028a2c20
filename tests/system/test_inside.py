"""A first login in a tree of `base` and `login`: everything works, and changes that tree only."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.system.calls import VIRT, Done, Virt
from tests.system.terminal import Terminal, running
from virttools.manifest.load import load

ONE, TWO = "domain1.com", "domain2.org"
USERS = """
profiles = ["base", "login"]
users = [{ name = "bob", gecos = "Bob" }, { name = "eve" }, { name = "typist" }]
"""
HOSTS_OWN = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/hosts")


class Domain:
    """The first of the two domains, and ways to run things in it."""

    def __init__(self, virt: Virt) -> None:
        self.virt = virt
        self.tree = virt.tree(ONE)

    def run(self, *argv: str, user: str = "root", env: dict[str, str] | None = None) -> Done:
        """Run something without a terminal."""
        return self.virt("exec", "--domain", ONE, "--user", user, "--", *argv, env=env)

    def good(self, *argv: str, user: str = "root") -> str:
        """Run something that must end with 0 and complain of nothing; what it printed."""
        done = self.run(*argv, user=user)
        assert (done.status, done.err) == (0, ""), f"{argv}: {done}"
        return done.out

    def on_terminal(self, *argv: str, user: str = "root") -> AbstractContextManager[Terminal]:
        """Run something with a terminal and somebody who types."""
        call = [str(VIRT), "exec", "--domain", ONE, "--user", user, "--", *argv]
        return running(call, self.virt.environment())

    def read(self, path: str) -> str:
        return (self.tree / path.lstrip("/")).read_text()


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """Two domains of one manifest, built by `virt create`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("virtual")
    root.chmod(0o755)
    manifest = tmp_path_factory.mktemp("manifest") / "users.toml"
    manifest.write_text(USERS)
    virt = Virt(root)
    virt.create(ONE, TWO, "-m", str(manifest))
    yield Domain(virt)
    virt.good("remove", "--yes", ONE, TWO)


@pytest.fixture
def domain(domains: Domain) -> Iterator[Domain]:
    """The first domain; afterwards the other one and the host are what they were, byte for byte."""
    before = _everything_else(domains.virt)
    yield domains
    assert _everything_else(domains.virt) == before


def _everything_else(virt: Virt) -> dict[str, tuple[int, int, int, str]]:
    other = virt.tree(TWO)
    paths = [Path(path) for path in HOSTS_OWN] + sorted(other.rglob("*"))
    return {str(path): _seen(path) for path in paths if os.path.lexists(path)}


def _seen(path: Path) -> tuple[int, int, int, str]:
    status = path.lstat()
    content = ""
    if path.is_symlink():
        content = str(path.readlink())
    elif path.is_file():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return status.st_mode, status.st_uid, status.st_gid, content


def test_no_program_that_the_profiles_name_is_not_found(domain: Domain) -> None:
    """Each is found by a shell inside, and each starts: no library is missing."""
    manifest = load(ONE, manifest_file=None, profiles=["login"], addresses=[]).manifest
    names = [
        binary.name
        for binary in manifest.binaries
        if not binary.optional or shutil.which(binary.name)
    ]
    script = 'for name; do command -v "$name" >/dev/null || echo "$name"; done'
    assert domain.good("sh", "-c", script, "sh", *names) == ""


def test_no_program_of_a_tree_lacks_a_library(domain: Domain) -> None:
    """The tree's own loader finds everything, for every program and every library of PAM."""
    script = """
    for file in /usr/bin/* /usr/sbin/* /usr/lib/*/security/*.so; do
        if out=$(/lib64/ld-linux-x86-64.so.2 --list "$file" 2>&1); then
            case $out in *"not found"*) echo "$file: $out" ;; esac
        fi
    done
    """
    if not Path("/lib64/ld-linux-x86-64.so.2").exists():
        pytest.skip("the loader of this machine has another name")
    assert domain.good("bash", "-c", script) == ""


@pytest.mark.parametrize("user", ["root", "bob"])
@pytest.mark.parametrize("options", [[], ["-l"]], ids=["plain", "login"])
def test_bash_starts_without_an_error_line(domain: Domain, user: str, options: list[str]) -> None:
    """Interactive, under a terminal: the first thing seen is the prompt, and it tells the domain."""
    mark = "#" if user == "root" else "$"
    with domain.on_terminal("bash", *options, "-i", user=user) as terminal:
        prompt = f"{user}@{ONE}:/{mark} "
        assert _plain(terminal.expect(prompt)) == ""
        terminal.type("echo $((40 + 2))\r")
        terminal.expect("42\n")
        terminal.expect(prompt)
        terminal.type("type ll; cd; pwd; exit 7\r")
        home = "/root" if user == "root" else f"/home/{user}"
        assert "alias" in terminal.expect(f"{home}\n")
        assert terminal.end() == 7


def _plain(text: str) -> str:
    """Without the switch for bracketed paste, which readline sends first."""
    return text.replace("\x1b[?2004h", "").strip()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_without_terminal_says_nothing(domain: Domain, shell: str) -> None:
    """As cron and inetd start them; profile and bashrc must not complain either."""
    for options in (["-c"], ["-lc"]):
        assert domain.good(shell, *options, "true") == ""


def test_a_user_is_who_the_tree_says(domain: Domain) -> None:
    """The programs `id`, `whoami`, `groups` and `getent` agree, as root and as bob."""
    assert domain.good("id") == "uid=0(root) gid=0(root) groups=0(root)\n"
    assert domain.good("id", user="bob") == "uid=1000(bob) gid=1000(bob) groups=1000(bob)\n"
    assert domain.good("whoami", user="bob") == "bob\n"
    assert domain.good("groups", user="bob") == "bob\n"
    assert domain.good("getent", "passwd", "root") == "root:x:0:0:root:/root:/bin/bash\n"
    assert domain.good("getent", "passwd", "bob") == "bob:x:1000:1000:Bob:/home/bob:/bin/bash\n"
    assert domain.good("getent", "group", "shadow") == "shadow:x:42:\n"


def test_names_of_hosts_ports_and_protocols_are_known(domain: Domain) -> None:
    """From the tree's own files, without the host's nsswitch.conf."""
    assert domain.good("getent", "hosts", "localhost").split() == [
        "::1",
        "localhost",
        "ip6-localhost",
        "ip6-loopback",
    ]
    assert domain.good("getent", "hosts", ONE).split()[1:] == [ONE, "domain1"]
    assert domain.good("getent", "services", "pop3").split() == ["pop3", "110/tcp", "pop-3"]
    assert domain.good("getent", "protocols", "tcp").split() == ["tcp", "6", "TCP"]


def test_the_tools_of_a_first_login_work(domain: Domain) -> None:
    """A pipe through the usual ones, an archive there and back, terminals, time and locale."""
    assert (
        domain.good("sh", "-c", "printf 'b\\na\\n' | sort | awk '{ print NR, $1 }'") == "1 a\n2 b\n"
    )
    assert domain.good("bash", "-c", "seq 9 | grep -c . | sed 's/9/nine/'") == "nine\n"
    script = "cd /tmp && echo hi >x && tar -czf x.tgz x && rm x && tar -xzf x.tgz && cat x && rm x*"
    assert domain.good("sh", "-c", script) == "hi\n"
    assert domain.good("find", "/etc", "-maxdepth", "1", "-name", "passwd") == "/etc/passwd\n"
    assert domain.good("tput", "-T", "xterm-256color", "colors") == "256\n"
    assert domain.good("which", "ls") == "/usr/bin/ls\n"
    assert domain.good("date", "-u", "-d", "@0", "+%F %Z") == "1970-01-01 UTC\n"
    done = domain.run("bash", "-c", "word=é; echo ${#word}", env={"LC_ALL": "C.UTF-8"})
    assert (done.out, done.err) == ("1\n", "")
    assert domain.good("sh", "-c", ": >/dev/null && head -c 4 /dev/urandom | wc -c") == "4\n"


def test_root_sets_a_password_at_the_terminal(domain: Domain) -> None:
    """`passwd bob` asks twice and shows nothing; the hash is yescrypt, in this tree's shadow."""
    with domain.on_terminal("passwd", "bob") as terminal:
        terminal.expect("New password: ")
        terminal.type("corr3ct-horse\r")
        terminal.expect("Retype new password: ")
        terminal.type("corr3ct-horse\r")
        terminal.expect("password updated successfully")
        assert terminal.end() == 0
    assert "corr3ct" not in terminal.shown
    assert "\nbob:$y$" in domain.read("/etc/shadow")


def test_a_user_changes_the_own_password(domain: Domain) -> None:
    """Which needs the set-user-id bit that the profile keeps, and the old password."""
    _set_password(domain, "typist", "0ld-password!")
    with domain.on_terminal("passwd", user="typist") as terminal:
        for question, answer in (
            ("Current password: ", "0ld-password!"),
            ("New password: ", "n3w-passw0rd!"),
            ("Retype new password: ", "n3w-passw0rd!"),
        ):
            terminal.expect(question)
            terminal.type(f"{answer}\r")
        terminal.expect("password updated successfully")
        assert terminal.end() == 0


def _set_password(domain: Domain, user: str, password: str) -> None:
    script = 'printf "%s:%s\\n" "$1" "$2" | chpasswd'
    assert domain.good("sh", "-c", script, "sh", user, password) == ""


def test_su_asks_for_the_password_that_chpasswd_set(domain: Domain) -> None:
    """Through PAM and the helper that reads shadow: the right one enters, a wrong one doesn't."""
    _set_password(domain, "eve", "s3cret-words")
    with domain.on_terminal("su", "-", "eve", "-c", "id -un; pwd", user="bob") as terminal:
        terminal.expect("Password: ")
        terminal.type("s3cret-words\r")
        terminal.expect("eve\n/home/eve\n")
        assert terminal.end() == 0
    with domain.on_terminal("su", "eve", "-c", "id -un", user="bob") as terminal:
        terminal.expect("Password: ")
        terminal.type("wrong\r")
        terminal.expect("Authentication failure")
        assert terminal.end() == 1


def test_adduser_makes_a_user_and_deluser_removes_it(domain: Domain) -> None:
    """With a home from skel, the next free number, a group of its own; then no trace in passwd."""
    _needs(domain, "adduser", "deluser")
    done = domain.run("adduser", "--disabled-password", "--gecos", "Carl,,,", "carl")
    assert (done.status, done.err) == (0, "")
    assert "carl:x:1003:1003:Carl,,,:/home/carl:/bin/bash\n" in domain.read("/etc/passwd")
    assert (domain.tree / "home/carl/.bashrc").read_text() == domain.read("/etc/skel/.bashrc")
    status = (domain.tree / "home/carl").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1003, 1003, 0o750)
    assert domain.good("id", "-un", user="carl") == "carl\n"
    done = domain.run("adduser", "carl", "staff")
    assert (done.status, done.err) == (0, "")
    assert domain.good("id", "-nG", user="carl").split() == ["carl", "staff", "users"]
    done = domain.run("deluser", "carl")
    assert (done.status, _less_crontab(done.err)) == (0, "")
    assert "carl" not in domain.read("/etc/passwd") + domain.read("/etc/group")


def _needs(domain: Domain, *names: str) -> None:
    for name in names:
        if domain.run("which", name).status != 0:
            pytest.skip(f"this machine has no {name}")


def _less_crontab(text: str) -> str:
    """What deluser says where there is no cron is no error of ours."""
    return "".join(line for line in text.splitlines(keepends=True) if "crontab" not in line)


def test_adduser_asks_what_it_must_know(domain: Domain) -> None:
    """The whole dialogue at a terminal: password, full name, and whether it is right."""
    _needs(domain, "adduser")
    with domain.on_terminal("adduser", "dora") as terminal:
        terminal.expect("New password: ")
        terminal.type("dor4-dor4-dor4\r")
        terminal.expect("Retype new password: ")
        terminal.type("dor4-dor4-dor4\r")
        terminal.expect("Full Name []: ")
        terminal.type("Dora\r")
        for question in ("Room Number", "Work Phone", "Home Phone", "Other"):
            terminal.expect(question)
            terminal.type("\r")
        terminal.expect("correct? [Y/n] ")
        terminal.type("y\r")
        assert terminal.end() == 0
    assert "Dora" in domain.good("getent", "passwd", "dora")


def test_useradd_usermod_and_userdel_work(domain: Domain) -> None:
    """The plain ones, with groups."""
    assert domain.good("groupadd", "www") == ""
    assert domain.good("useradd", "-m", "-G", "www", "-s", "/bin/sh", "fred") == ""
    assert domain.good("usermod", "-c", "Fred", "fred") == ""
    assert ":Fred:/home/fred:/bin/sh\n" in domain.good("getent", "passwd", "fred")
    assert domain.good("id", "-nG", user="fred") == "fred www\n"
    assert "\nwww:!::fred\n" in domain.read("/etc/gshadow")
    done = domain.run("userdel", "-r", "fred")
    assert (done.status, done.err) == (0, "userdel: fred mail spool (/var/mail/fred) not found\n")
    assert not (domain.tree / "home/fred").exists()
    assert domain.good("groupdel", "www") == ""
    assert "fred" not in domain.read("/etc/passwd") + domain.read("/etc/group")


def test_accounts_are_consistent(domain: Domain) -> None:
    """The checkers of passwd and group find nothing but homes that system users never had."""
    done = domain.run("pwck", "-r")
    said = [line for line in done.out.splitlines() if "does not exist" not in line]
    assert [line for line in said if line != "pwck: no changes"] == []
    assert domain.good("grpck", "-r") == ""


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "screen-256color", "linux", "vt100"])
def test_vi_edits_a_file(domain: Domain, term: str) -> None:
    """Under every common terminal, without a complaint about it."""
    _needs(domain, "vi")
    with _editor(domain, term, "vi", "/tmp/vi.txt") as terminal:
        terminal.expect("vi.txt")
        terminal.type("ihello from vi\x1b:wq\r")
        assert terminal.end() == 0
    assert domain.read("/tmp/vi.txt") == "hello from vi\n"
    assert not [word for word in ("E437", "E557", "E558", "rror") if word in terminal.shown]
    (domain.tree / "tmp/vi.txt").unlink()


@pytest.mark.parametrize("term", ["xterm", "screen-256color", "linux"])
def test_nano_edits_a_file(domain: Domain, term: str) -> None:
    """Ctrl-O saves, Ctrl-X leaves."""
    _needs(domain, "nano")
    with _editor(domain, term, "nano", "/tmp/nano.txt") as terminal:
        terminal.expect("New File")
        terminal.type("hello from nano\x0f")
        terminal.expect("nano.txt")
        terminal.type("\r")
        terminal.expect("Wrote 1 line")
        terminal.type("\x18")
        assert terminal.end() == 0
    assert domain.read("/tmp/nano.txt") == "hello from nano\n"
    assert "rror" not in terminal.shown
    (domain.tree / "tmp/nano.txt").unlink()


def _editor(domain: Domain, term: str, *argv: str) -> AbstractContextManager[Terminal]:
    call = [str(VIRT), "exec", "--domain", ONE, "--", *argv]
    return running(call, domain.virt.environment({"TERM": term}))


def test_a_domain_can_have_a_range_of_ids_of_its_own(virt: Virt, tmp_path: Path) -> None:
    """With uid_base nothing inside but root has a number that another domain uses, nor gets one."""
    manifest = tmp_path / "own.toml"
    manifest.write_text(f"uid_base = 200000\n{USERS}")
    virt.create(ONE, "-m", str(manifest))
    own = Domain(virt)
    assert own.good("id", user="bob") == "uid=201000(bob) gid=201000(bob) groups=201000(bob)\n"
    assert own.good("useradd", "-m", "gina") == ""
    assert own.good("id", "-u", user="gina") == "201003\n"
    done = own.run("adduser", "--disabled-password", "--gecos", "Hal,,,", "hal")
    assert (done.status, done.err) == (0, "")
    assert "groups=201004(hal),200100(users)" in own.good("id", user="hal")
    assert own.run("deluser", "--remove-home", "hal").status == 0
    _set_password(own, "gina", "s3cret-words")
    with own.on_terminal("su", "gina", "-c", "id -un", user="bob") as terminal:
        terminal.expect("Password: ")
        terminal.type("s3cret-words\r")
        terminal.expect("gina\n")
        assert terminal.end() == 0
    numbers = {path.lstat().st_uid for path in own.tree.rglob("*")}
    assert numbers == {0, 201000, 201001, 201002, 201003}
    shadow = (own.tree / "etc/shadow").stat()
    assert (shadow.st_uid, shadow.st_gid, shadow.st_mode & 0o777) == (0, 200042, 0o640)
