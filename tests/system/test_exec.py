"""`virt exec` and `virtNAME` in trees made by hand, through the real launcher."""

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.handmade import VIRT, probe, tree, virt

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder that holds one domain with a few programs."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("root")
    domain = tree(root / "domain1.com", "sh", "cat", "id", "env", "true")
    probe(domain)
    for name, text in {
        "stray": "#!/opt/perl -w\n",
        "headless": "echo no first line\n",
        "good": "#! /bin/sh -e\necho script $1\n",
    }.items():
        (domain / "bin" / name).write_text(text)
        (domain / "bin" / name).chmod(0o755)
    (domain / "bin" / "data").write_text("no program\n")
    return root


def test_a_command_runs_inside_and_its_status_is_ours(root: Path) -> None:
    """`virt exec` is the command: its output, its status, its death by a signal."""
    done = virt("exec", "--domain", "domain1.com", "--", "cat", "/etc/hostname", root=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "domain1.com\n", "")
    assert virt("exec", "sh", "-c", "exit 42", root=root).returncode == 42
    assert virt("exec", "sh", "-c", "kill -TERM $$", root=root).returncode == -signal.SIGTERM


def test_a_command_starts_clean(root: Path) -> None:
    """Three descriptors, default signals, nothing blocked, umask 022, the tree's / as directory."""
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    mask = os.umask(0o077)
    try:
        done = subprocess.run(
            [VIRT, "exec", "--", "probe", "--domain", "x", ""],
            env={"VIRT_ROOT": str(root)},
            capture_output=True,
            text=True,
            pass_fds=[leaked],
            check=False,
        )
    finally:
        os.umask(mask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGHUP, old)
        os.close(leaked)
    assert (done.returncode, done.stdout) == (
        7,
        "argv [probe] [--domain] [x] []\nfds 0 1 2\nignored\nblocked\numask 0022\ncwd /\n",
    )


def test_only_system_calls_run_between_chroot_and_execve(root: Path, tmp_path: Path) -> None:
    """Nothing of the tree is opened by us once it is "/": no import, no NSS, no codec, no locale."""
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "-o", trace, VIRT, "exec", "--chroot", "--user", "bob", "--", "true"],
        env={"VIRT_ROOT": str(root), "LANG": "de_DE.ISO-8859-1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    calls = [line.split(None, 1)[1].partition("(")[0] for line in trace.read_text().splitlines()]
    inside = calls[calls.index("chroot") + 1 :]
    before = inside[: inside.index("execve")]
    assert set(before) - {"brk", "mmap", "munmap"} == {"fchdir", "setgroups", "setgid", "setuid"}


def test_the_environment_is_made_anew(root: Path) -> None:
    """Only TERM, LANG and LC_* come along; even the interpreter's own LC_CTYPE does not."""
    done = virt(
        "exec", "--env", "A=b=c", "env", root=root, SECRET="x", TERM="vt100", PYTHONPATH="/x"
    )
    assert sorted(done.stdout.splitlines()) == [
        "A=b=c",
        "HOME=/root",
        "LOGNAME=root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL=/bin/sh",
        "TERM=vt100",
        "USER=root",
    ]
    kept = virt("exec", "env", root=root, LC_CTYPE="C.UTF-8").stdout
    assert "LC_CTYPE=C.UTF-8\n" in kept


def test_a_user_is_one_of_the_tree(root: Path) -> None:
    """Ids, groups and home of --user come from the tree's own files, not from the host's."""
    done = virt(
        "exec",
        "--user",
        "bob",
        "--cwd",
        "home/bob",
        "--",
        "sh",
        "-c",
        "id; pwd; echo $SHELL",
        root=root,
    )
    assert done.stdout == (
        "uid=1234(bob) gid=1234(bob) groups=1234(bob),2033(www)\n/home/bob\n/bin/bobsh\n"
    )
    assert virt("exec", "--user", "1234", "--", "id", "-u", root=root).stdout == "1234\n"
    assert virt("exec", "--user", "ann", "--", "id", root=root).returncode == 125


def test_any_bytes_reach_the_command(root: Path) -> None:
    """Arguments pass unchanged, whatever their bytes and whatever the locale."""
    word = bytes(range(1, 256))
    for locale in ({}, {b"LC_ALL": b"C"}, {b"LC_ALL": b"C.UTF-8"}):
        done = subprocess.run(
            [os.fsencode(VIRT), b"exec", b"--", b"sh", b"-c", b'printf %s "$1"', b"sh", word],
            env={b"VIRT_ROOT": os.fsencode(root), **locale},
            capture_output=True,
            check=False,
        )
        assert done.stdout == word


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("nothing", 127, "cannot find nothing: it is not in the tree"),
        ("/bin/nothing", 127, "cannot find /bin/nothing: it is not in the tree"),
        ("", 127, "cannot find : it is not in the tree"),
        ("\x1b[2J", 127, r"cannot find '\x1b[2J': it is not in the tree"),
        ("data", 126, "cannot run /bin/data: it is not executable"),
        ("/etc", 126, "cannot run /etc: it is a folder"),
        ("stray", 126, "cannot run /bin/stray: its interpreter /opt/perl is not in the tree"),
        (
            "headless",
            126,
            "cannot run /bin/headless: it is neither for this machine nor a script that begins with #!",
        ),
    ],
)
def test_what_cannot_run_is_told_from_what_is_not_there(
    root: Path, command: str, status: int, said: str
) -> None:
    """127 not found, 126 not executable, each with a sentence."""
    done = virt("exec", "--", command, root=root)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (
        status,
        "",
        f"virt: {said}",
    )


def test_a_program_without_its_loader_is_explained(root: Path) -> None:
    """The kernel's ENOENT for a missing loader does not pass for a missing program."""
    bare = root / "bare.org"
    tree(bare, "true")
    for loader in (*bare.glob("lib*/ld-*"), *bare.glob("lib/*/ld-*")):
        loader.unlink()
    done = virt("exec", "--domain", "bare.org", "true", root=root)
    tree_left = sorted(bare.rglob("*"), reverse=True)
    for path in tree_left:
        path.rmdir() if path.is_dir() else path.unlink()
    bare.rmdir()
    assert (done.returncode, done.stderr) == (
        126,
        "virt: cannot run /bin/true: its loader (see `readelf -l`) is not in the tree\n",
    )


def test_a_script_runs_by_its_interpreter(root: Path) -> None:
    """A script that names a program of the tree runs."""
    assert virt("exec", "good", "x", root=root).stdout == "script x\n"


def test_several_domains_and_none_chosen_is_a_question(tmp_path: Path) -> None:
    """Without a choice: status 2 and the list; VIRT_DOMAIN or --domain choose; dots and files are no domains."""
    for name in ("b.com", "a.com"):
        tree(tmp_path / name, "cat")
    (tmp_path / ".virt").mkdir()
    (tmp_path / "conf.ftp").touch()
    asked = virt("exec", "cat", "/etc/hostname", root=tmp_path)
    assert (asked.returncode, asked.stderr) == (
        2,
        "virt: cannot choose a domain: there are several:\na.com\nb.com\nhint: name one by --domain or VIRT_DOMAIN\n",
    )
    misplaced = virt("exec", "b.com", "--", "cat", "/etc/hostname", root=tmp_path)
    assert (misplaced.returncode, misplaced.stderr) == (
        125,
        "virt: cannot run b.com: it is a domain\nhint: virt exec --domain b.com -- COMMAND\n",
    )
    misspelt = virt("exec", "--domain", "b.con", "cat", root=tmp_path)
    assert misspelt.stderr.endswith("hint: did you mean b.com?\n")
    for chosen in (
        virt("exec", "cat", "/etc/hostname", root=tmp_path, VIRT_DOMAIN="b.com"),
        virt("exec", "--domain=B.com.", "cat", "/etc/hostname", root=tmp_path, VIRT_DOMAIN="a.com"),
        virt("--root", str(tmp_path), "-q", "exec", "--domain", "b.com", "cat", "/etc/hostname"),
    ):
        assert (chosen.stdout, chosen.stderr) == ("b.com\n", "")


def test_an_international_name_is_its_a_label(tmp_path: Path) -> None:
    """A domain is found by the name that people write, too."""
    tree(tmp_path / "xn--bcher-kva.example", "cat")
    done = virt("exec", "--domain", "Bücher.example", "cat", "/etc/hostname", root=tmp_path)
    assert (done.stdout, done.stderr) == ("xn--bcher-kva.example\n", "")


@pytest.mark.parametrize("name", ["../etc", "no.such", ".virt", "-x.com", "", ".", "a/b"])
def test_no_domain_no_entry(root: Path, name: str) -> None:
    """What is no domain of the root is refused with 125 and a sentence."""
    done = virt("exec", "--domain", name, "true", root=root)
    assert done.returncode == 125
    assert done.stderr.startswith("virt: cannot enter ")


def test_a_link_in_the_root_is_no_domain(tmp_path: Path) -> None:
    """A symlink where a tree should be is never followed."""
    (tmp_path / "evil.com").symlink_to("/")
    assert virt("exec", "--domain", "evil.com", "true", root=tmp_path).returncode == 125


@pytest.mark.parametrize("loose", [".", "domain1.com"])
def test_folders_that_others_may_change_are_not_entered(tmp_path: Path, loose: str) -> None:
    """A root or tree that group or others can write, or that is not root's, is refused by its path."""
    tree(tmp_path / "domain1.com", "true")
    (tmp_path / loose).chmod(0o775)
    writable = virt("exec", "true", root=tmp_path)
    (tmp_path / loose).chmod(0o755)
    os.chown(tmp_path / loose, 1234, 0)
    foreign = virt("exec", "true", root=tmp_path)
    os.chown(tmp_path / loose, 0, 0)
    assert (writable.returncode, foreign.returncode) == (125, 125)
    assert "mode 0775" in writable.stderr
    assert "owner 1234" in foreign.stderr


def test_a_hostile_tree_harms_nobody(tmp_path: Path) -> None:
    """Links out, fifos, sockets and devices in place of passwd and programs: nothing is opened or hangs."""
    domain = tree(tmp_path / "domain1.com", "true", "id")
    secret = tmp_path / "secret"
    secret.write_text("eve:x:0:0::/:/bin/sh\n")
    passwd = domain / "etc/passwd"
    plants: tuple[Callable[[], object], ...] = (
        lambda: passwd.symlink_to(secret),
        lambda: passwd.symlink_to("../../../../../.." + str(secret)),
        lambda: os.mkfifo(passwd),
        lambda: os.mknod(passwd, 0o600 | stat.S_IFCHR, os.makedev(1, 5)),
        lambda: passwd.symlink_to("passwd"),
        lambda: passwd.write_bytes(b"eve:x:5:5::/home\0x:/bin/sh\0\nroot:x:0:0::/\0:/bin/sh\n"),
    )
    for plant in plants:
        passwd.unlink()
        plant()
        assert virt("exec", "--user", "eve", "true", root=tmp_path).returncode == 125
        assert virt("exec", "true", root=tmp_path).returncode == 0
    os.mkfifo(domain / "bin/fifo", 0o755)
    (domain / "bin/out").symlink_to("/usr/bin/env")
    (domain / "bin/up").symlink_to("../../../../../../bin/true")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(domain / "bin/sock"))
    listener.close()
    told = [virt("exec", name, root=tmp_path).returncode for name in ("fifo", "sock", "out", "up")]
    assert told == [126, 126, 127, 0]


def test_a_missing_root_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    """Each has its own sentence and 125."""
    missing = virt("exec", "true", root=tmp_path / "none")
    empty = virt("exec", "true", root=tmp_path)
    assert (missing.returncode, empty.returncode) == (125, 125)
    assert "No such file or directory" in missing.stderr
    assert "holds none" in empty.stderr


def test_a_stranger_is_told_whose_domains_those_are(root: Path) -> None:
    """An ordinary user, for whom another's root is closed, reads what would open it, and gets 125."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    # The checkout may lie where only root looks.
    looking = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    done = subprocess.run(
        [*nobody, *looking, VIRT, "exec", "true"],
        env={"VIRT_ROOT": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert done.stderr == (
        f"virt: cannot enter a domain of {root}: that is not yours\n"
        "hint: use sudo, or become root; a domain of your own: virt create DOMAIN\n"
    )


def test_json_says_the_error_as_a_document(root: Path) -> None:
    """With --json a failure is one document on stdout with the same status."""
    done = virt("--json", "exec", "--domain", "no.such", "true", root=root)
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (125, "")
    assert (document["command"], document["status"], document["errors"][0]["code"]) == (
        "exec",
        "error",
        "enter",
    )


def test_virtname_gives_every_argument_to_name(root: Path, tmp_path: Path) -> None:
    """A symlink virtNAME runs NAME; not even --help, --domain or --json are ours."""
    link = tmp_path / "virtprobe"
    link.symlink_to(VIRT)
    done = subprocess.run(
        [link, "--help", "--domain", "--json", "--", "-v"],
        env={"VIRT_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout.splitlines()[0] == "argv [probe] [--help] [--domain] [--json] [--] [-v]"


def test_the_host_environment_cannot_make_the_launcher_run_other_code(
    root: Path, tmp_path: Path
) -> None:
    """PYTHONPATH, PYTHONHOME, ENV, BASH_ENV and a module in the working directory change nothing."""
    for name in ("os.py", "virttools.py", "sitecustomize.py", "readlink", "python3"):
        (tmp_path / name).write_text("#!/bin/sh\necho TAKEN OVER; exit 99\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "virtprobe").symlink_to(VIRT)
    here = str(tmp_path)
    done = subprocess.run(
        [tmp_path / "virtprobe"],
        env={
            "VIRT_ROOT": str(root),
            "PATH": here,
            **dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE"), here),
            **dict.fromkeys(("ENV", "BASH_ENV", "PYTHONSTARTUP"), here + "/os.py"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (7, "argv [probe]", "")


def test_help_and_wrong_options_are_answered(root: Path) -> None:
    """`--help` prints the usage; a wrong option is 125 with a sentence, never the command's status."""
    assert virt("exec", "--help").stdout.startswith("Usage: virt exec ")
    for words in (["--bogus", "x"], ["--user"], ["--env", "x", "true"], ["--"], []):
        done = virt("exec", *words, root=root)
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith("virt: cannot ")
