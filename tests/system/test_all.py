"""`virt exec --all`: one command in many domains, each line told apart, and nothing left running."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.handmade import VIRT, tree, virt
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("as_root")

NAMES = ("a.org", "b.com", "c.org")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three domains; each has its number in /etc/number."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("root")
    for number, name in enumerate(NAMES):
        folder = tree(root / name, "sh", "cat", "sleep", "setsid", "head", "tr", "chmod")
        (folder / "etc/number").write_text(f"{number}\n")
        (folder / "dev").mkdir()
        os.mknod(folder / "dev/zero", 0o666 | 0o020000, os.makedev(1, 5))
    (root / "b.com/bin/data").write_text("no program\n")
    return root


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


def test_each_line_has_its_domain(root: Path) -> None:
    """The two outputs stay apart; a last line without an end is a line too; then the count."""
    command = "cat /etc/number; echo one >&2; printf 'no end'"
    done = virt("exec", "--all", "--", "sh", "-c", command, root=root)
    assert done.returncode == 0
    assert lines(done.stdout) == lines(
        "".join(f"{name}: {number}\n{name}: no end\n" for number, name in enumerate(NAMES))
    )
    assert lines(done.stderr) == [
        *(f"{name}: one" for name in NAMES),
        "virt: 3 domains: 3 good, 0 failed",
    ]


def test_lines_of_domains_are_not_mixed(root: Path) -> None:
    """However they are written, piece by piece and all at once."""
    command = "for i in 1 2 3 4 5 6 7 8 9; do printf 'a b '; printf 'c\\n'; done"
    done = virt("exec", "--all", "--parallel", "3", "sh", "-c", command, root=root)
    assert lines(done.stdout) == lines("".join(f"{name}: a b c\n" * 9 for name in NAMES))


def test_json_has_an_object_for_each_line_and_one_for_the_whole(root: Path) -> None:
    """Bytes that are no UTF-8 are shown; the last object is the document every command prints."""
    command = "printf 'x\\377\\n'; printf rest >&2; exit $(cat /etc/number)"
    for words in (("--json", "exec", "--all"), ("exec", "--all", "--json")):
        done = virt(*words, "--match", "[ab]*", "--", "sh", "-c", command, root=root)
        *told, whole = [json.loads(line) for line in done.stdout.splitlines()]
        assert (done.returncode, done.stderr) == (1, "")
        assert sorted(told, key=lambda one: (one["domain"], one["stream"])) == [
            {"domain": name, "stream": "stderr", "line": "rest", "partial": True}
            if stream == "stderr"
            else {"domain": name, "stream": "stdout", "line": "x\\xff"}
            for name in ("a.org", "b.com")
            for stream in ("stderr", "stdout")
        ]
        assert (whole["version"], whole["command"], whole["status"]) == (1, "exec", "error")
        assert whole["data"] == {
            "domains": [{"domain": "a.org", "status": 0}, {"domain": "b.com", "status": 1}]
        }
        assert whole["errors"][0]["code"] == "command-failed"


@pytest.mark.parametrize("plainly", [(), ("--chroot",)], ids=["contained", "chroot"])
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("exit 0", 0),
        ("exit $(cat /etc/number)", 2),
        ("test $(cat /etc/number) != 1 || exit 42", 42),
        ("test $(cat /etc/number) != 0 || kill -TERM $$", 128 + 15),
        ("test $(cat /etc/number) != 2 || kill -KILL $$", 128 + 9),
    ],
)
def test_the_status_is_the_highest(
    root: Path, plainly: tuple[str, ...], command: str, status: int
) -> None:
    """Of those the commands end with, a death by signal n being 128+n."""
    done = virt("exec", "--all", *plainly, "--", "sh", "-c", command, root=root)
    assert done.returncode == status


def test_what_cannot_run_has_the_status_that_exec_has(root: Path) -> None:
    """126, 127 and 125, each said by its domain; the others run."""
    done = virt("exec", "--all", "--", "data", root=root)
    assert done.returncode == 127
    assert "b.com: virt: cannot run /bin/data: it is not executable" in done.stderr
    assert "virt: b.com: status 126\n" in done.stderr
    done = virt("exec", "--all", "--user", "ann", "cat", "/etc/number", root=root)
    assert (done.returncode, done.stdout) == (125, "")
    assert "a.org: virt: cannot become ann" in done.stderr


def test_only_matching_domains_are_entered(root: Path) -> None:
    """A glob; none that matches is 125, not a silent success."""
    done = virt("exec", "--all", "--match", "*.ORG", "cat", "/etc/number", root=root)
    assert lines(done.stdout) == ["a.org: 0", "c.org: 2"]
    done = virt("exec", "--all", "--match", "*.net", "cat", "/etc/number", root=root)
    assert (done.returncode, done.stdout) == (125, "")
    assert "no domain that matches *.net" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--all", "--domain", "a.org"],
        ["--match", "*"],
        ["--parallel", "2"],
        ["--json"],
        ["--all", "--parallel", "0"],
        ["--all", "--parallel", "-1"],
        ["--all", "--parallel", "x"],
        ["--all", "--parallel", "1001"],
        ["--all", "--parallel", "0000000000005"],
    ],
)
def test_wrong_options_run_nothing(root: Path, words: list[str]) -> None:
    """125 and a sentence."""
    done = virt("exec", *words, "--", "cat", "/etc/number", root=root)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("virt: cannot ")


def test_standard_input_is_empty_and_the_session_its_own(root: Path) -> None:
    """A command that reads meets the end at once, even if ours has something to read."""
    done = subprocess.run(
        [VIRT, "exec", "--all", "--", "cat"],
        env={"VIRT_ROOT": str(root)},
        input="for nobody",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    chmod = [str(VIRT), "exec", "--all", "--", "chmod", "0", "/proc/self/fd/0"]
    before = os.stat("/dev/null").st_mode
    try:  # what root of a tree does to it reaches nobody else
        subprocess.run(chmod, env={"VIRT_ROOT": str(root)}, capture_output=True, check=False)
        assert os.stat("/dev/null").st_mode == before
    finally:
        os.chmod("/dev/null", before & 0o7777)


def test_a_line_without_an_end_does_not_fill_the_memory(root: Path) -> None:
    """8 MB of one line come through, in pieces of about one."""
    command = "head -c 8000000 /dev/zero | tr '\\0' x"
    done = virt("exec", "--all", "--match", "a.org", "--", "sh", "-c", command, root=root)
    assert done.returncode == 0
    told = done.stdout.splitlines()
    assert all(line.startswith("a.org: x") for line in told)
    assert sum(len(line) - len("a.org: ") for line in told) == 8000000
    assert 8 <= len(told) <= 64


def marked(mark: str) -> list[int]:
    """The processes whose command line holds mark."""
    return [pid for pid in processes.every() if mark in " ".join(processes.words(pid))]


@pytest.mark.parametrize("plainly", [(), ("--chroot",)], ids=["contained", "chroot"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_and_leaves_nothing(
    root: Path, plainly: tuple[str, ...], number: signal.Signals
) -> None:
    """What was said so far is told, 128+n, and no process of any command is left, willing or not, nor one that left its session."""
    mark = f"98765.{int(number)}{len(plainly)}"
    command = f"trap '' TERM INT HUP; setsid sleep {mark} & echo begun; sleep {mark}; sleep {mark}"
    running = subprocess.Popen(
        [VIRT, "exec", "--all", *plainly, "--parallel", "2", "--", "sh", "-c", command],
        env={"VIRT_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    begun = sorted(running.stdout.readline() for _ in range(2))
    running.send_signal(number)
    out, err = running.communicate(timeout=PATIENCE)
    assert begun == [b"a.org: begun\n", b"b.com: begun\n"]
    assert running.returncode == 128 + number
    assert b"1 not begun: stopped by signal %d" % number in err
    assert out == b""
    assert marked(mark) == []


def test_a_reader_that_goes_away_stops_all(root: Path) -> None:
    """As in `| head`: 141, and nothing is left."""
    mark = "98766.5"
    command = f"trap '' TERM PIPE; while sleep 0.01; do echo line; done 2>/dev/null; sleep {mark}"
    running = subprocess.Popen(
        [VIRT, "exec", "--all", "--", "sh", "-c", command],
        env={"VIRT_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.wait(PATIENCE) == 141
    assert marked(mark) == []


def test_what_is_killed_leaves_nothing_contained(root: Path) -> None:
    """SIGKILL of virt itself: the contained commands end with it."""
    mark = "98767.5"
    running = subprocess.Popen(
        [VIRT, "exec", "--all", "--", "sh", "-c", f"echo begun; sleep {mark}"],
        env={"VIRT_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.kill()
    running.wait(PATIENCE)
    running.stdout.close()
    until(lambda: not marked(mark), "nothing is left")


def test_a_daemon_that_keeps_the_pipe_is_not_waited_for(root: Path) -> None:
    """When the command itself has ended, its output is at its end."""
    command = "sleep 600 & echo done; echo $! >/tmp/pid"
    done = virt("exec", "--all", "--chroot", "--match", "a.org", "sh", "-c", command, root=root)
    os.kill(int((root / "a.org/tmp/pid").read_text()), signal.SIGKILL)
    assert (done.returncode, done.stdout) == (0, "a.org: done\n")
