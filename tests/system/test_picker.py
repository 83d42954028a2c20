"""The choice of a domain through the real `virt`, on a terminal and without."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.handmade import VIRT, tree
from tests.system.terminal import running

pytestmark = pytest.mark.usefixtures("as_root")

NAMES = ("domain1.com", "domain2.com", "other.org")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three domains with a shell, and a .virt to remember in."""
    for name in NAMES:
        tree(tmp_path / name, "sh", "cat", "true")
    (tmp_path / ".virt").mkdir(mode=0o700)
    for name in ("cat", "sh"):
        (tmp_path / f"virt{name}").symlink_to(VIRT)
    return tmp_path


def environment(root: Path, **more: str) -> dict[str, str]:
    return {"VIRT_ROOT": str(root), "TERM": "xterm", "PATH": os.environ["PATH"], **more}


def test_the_picked_domain_is_entered(root: Path) -> None:
    """By a symlink and by exec; each remembers for its command, and `-` is the last one."""
    by_link = [str(root / "virtcat"), "/etc/hostname"]
    by_exec = [str(VIRT), "exec", "--", "/bin/cat", "/etc/hostname"]
    for argv, typed, name in (
        (by_link, "2\r", "domain2.com"),
        (by_exec, "-\r", "domain2.com"),
        (by_exec, "oth\r", "other.org"),
        (by_link, "-\r", "other.org"),
    ):
        with running(argv, environment(root)) as terminal:
            terminal.expect("Domain for cat")
            terminal.type(typed)
            assert terminal.end() == 0
            assert terminal.shown.endswith(f"{name}\n")


def test_standard_output_has_nothing_of_the_question(root: Path, tmp_path: Path) -> None:
    """The question goes to the terminal, also where 0, 1 and 2 are something else."""
    script = f"{root}/virtcat /etc/hostname <&- >{tmp_path}/out 2>{tmp_path}/err"
    for term in ("xterm", "dumb"):
        with running(["/bin/sh", "-c", script], environment(root, TERM=term)) as terminal:
            terminal.expect("Domain for cat")
            terminal.type("1\r")
            assert terminal.end() == 0
        assert (tmp_path / "out").read_text() == "domain1.com\n"
        assert (tmp_path / "err").read_text() == ""


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_cancelled_question_runs_nothing(root: Path, term: str) -> None:
    """Ctrl-C is 130, and the command was never there."""
    argv = [str(root / "virtsh"), "-c", "echo ran; >/ran"]
    with running(argv, environment(root, TERM=term)) as terminal:
        # The drawn list stands below the question, the plain one above it.
        for text in ("Domain for sh", "other.org")[:: 1 if term == "xterm" else -1]:
            terminal.expect(text)
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    assert not list(root.glob("*/ran"))
    assert not list((root / ".virt").rglob("*.com"))


def test_the_terminal_is_left_as_it_was(root: Path) -> None:
    """After the question, cancelled or answered, stty says what it said before."""
    script = f"stty -g; {root}/virtcat /etc/hostname; stty -g"
    for key in ("\x03", "3\r"):
        with running(["/bin/sh", "-c", script], environment(root)) as terminal:
            terminal.expect("Domain for cat")
            terminal.expect("other.org")
            terminal.type(key)
            terminal.end()
        shown = [line for line in terminal.shown.split("\n") if line.count(":") > 10]
        assert len(shown) == 2
        assert shown[0] == shown[1].split("\x1b[?2004l")[-1]


def test_without_a_terminal_the_domains_are_listed(root: Path) -> None:
    """Status 2, the list on stderr, nothing on stdout; --json says it as a document."""
    for argv in ([str(VIRT), "exec", "--", "cat"], [str(root / "virtcat")]):
        done = subprocess.run(
            argv,
            env=environment(root),
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[1:-1] == list(NAMES)


def test_one_domain_is_not_asked_for(root: Path) -> None:
    """Even if a record without a tree lies about."""
    for name in NAMES[1:]:
        (root / name).rename(root / f".virt/{name}")
    (root / ".virt/records").mkdir()
    (root / ".virt/records/gone.com.json").write_text("{}")
    done = subprocess.run(
        [root / "virtcat", "/etc/hostname"],
        env=environment(root),
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "domain1.com\n")


def test_a_file_of_roots_answers_for_a_folder(root: Path, tmp_path: Path) -> None:
    """And not under sudo, where somebody else chose the folder."""
    folder = tmp_path.parent / f"{tmp_path.name}-site" / "deep"
    folder.mkdir(parents=True)
    (folder.parent / ".virt-domain").write_text("domain2.com\n")

    def call(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [root / "virtcat", "/etc/hostname"],
            env=environment(root, **more),
            cwd=folder,
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
        )

    assert call().stdout == "domain2.com\n"
    assert call(VIRT_DOMAIN="domain1.com").stdout == "domain1.com\n"
    assert call(SUDO_UID="1000").returncode == 2
