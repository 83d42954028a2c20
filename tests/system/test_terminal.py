"""Contained commands on a terminal: theirs is their own, and feels like the caller's."""

import fcntl
import os
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.handmade import VIRT, tree
from tests.system.terminal import Terminal, running
from tests.system.waiting import until

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with one domain."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("root")
    programs = (
        "sh", "bash", "cat", "stty", "tty", "sleep", "ps", "true", "id", "ls", "seq", "test", "head", "wc",
    )  # fmt: skip
    domain = tree(root / "domain1.com", *programs)
    for name in ("proc", "dev/pts"):
        (domain / name).mkdir(parents=True)
    (domain / "bin/bobsh").symlink_to("bash")
    os.mknod(domain / "dev/tty", 0o666 | 0o020000, os.makedev(5, 0))
    (domain / "dev/tty").chmod(0o666)
    return root


def environment(root: Path) -> dict[str, str]:
    return {"VIRT_ROOT": str(root), "PATH": os.environ["PATH"], "TERM": "dumb", "VIRT": str(VIRT)}


def shell(root: Path, script: str) -> list[str]:
    """A shell of this host that runs a script, as the caller's."""
    return ["/bin/bash", "-c", script]


def test_a_command_has_a_terminal_with_a_name(root: Path) -> None:
    """All three descriptors are it, it is in the tree's own devpts, /dev/tty is it too, and its owner is right."""
    script = "tty; test -t 0 && test -t 1 && test -t 2 && test -r /dev/tty && ls -n $(tty)"
    argv = [str(VIRT), "exec", "--user", "bob", "--", "sh", "-c", script]
    with running(argv, environment(root)) as terminal:
        terminal.expect("/dev/pts/0\n")
        terminal.expect("crw--w---- 1 1234 5 136, 0 ")
        assert terminal.end() == 0


def test_the_size_follows_the_callers(root: Path) -> None:
    """At the start, and whenever the window changes: SIGWINCH inside."""
    script = "stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"
    with running([str(VIRT), "exec", "bash", "-c", script], environment(root)) as terminal:
        terminal.expect("24 80\n")
        terminal.expect("ready\n")
        fcntl.ioctl(terminal._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        terminal.expect("33 99\n")
        assert terminal.end() == 3


def test_keys_are_signals_inside(root: Path) -> None:
    """The keys for SIGINT and SIGQUIT reach the command in front, not us; the shell around it goes on."""
    with running(
        [str(VIRT), "exec", "--env", "PS1=> ", "bash", "--norc", "-i"], environment(root)
    ) as t:
        t.expect("> ")
        for key, status in (("\x03", 130), ("\x1c", 131)):
            t.type("sleep 600\r")
            t.expect("sleep 600\n")
            _until_runs(t, "sleep")
            t.type(key)
            t.expect("> ")
            t.type("echo status=$?\r")
            t.expect(f"status={status}\n")
        t.type("exit 5\r")
        assert t.end() == 5


def test_ctrl_c_ends_a_loop_of_the_caller(root: Path) -> None:
    """Whoever dies of SIGINT inside is seen to die of it: the caller's script ends as well."""
    script = "for i in 1 2 3; do echo round $i; $VIRT exec sleep 600; done; echo never"
    with running(shell(root, script), environment(root)) as terminal:
        terminal.expect("round 1")
        _until_runs(terminal, "sleep")
        terminal.type("\x03")
        assert terminal.end() == -signal.SIGINT
        assert "round 2" not in terminal.shown


def test_jobs_inside_are_controlled_inside(root: Path) -> None:
    """Ctrl-Z in a shell of the tree stops its job, which it lists and brings back."""
    with running(
        [str(VIRT), "exec", "--env", "PS1=> ", "bash", "--norc", "-i"], environment(root)
    ) as t:
        t.expect("> ")
        assert "no job control" not in t.shown
        t.type("sleep 600\r")
        _until_runs(t, "sleep")
        t.type("\x1a")
        t.expect("Stopped")
        t.type("jobs; fg\r")
        t.expect("Stopped")
        t.expect("sleep 600\n")
        t.expect("sleep 600\n")  # so says fg, and then lets it go on
        sleeper = _until_runs(t, "sleep")
        until(lambda: processes.state(sleeper) == "S", "it goes on")
        t.type("\x03")
        t.expect("> ")
        t.type("exit\r")
        t.end()


def test_a_stopped_command_is_a_stopped_job_of_the_caller(root: Path) -> None:
    """Ctrl-Z stops all of it, the caller's shell has its terminal back as it was; fg goes on."""
    with running(["/bin/bash", "--norc", "-i"], {**environment(root), "PS1": "host> "}) as t:
        t.expect("host> ")
        t.type("$VIRT exec cat\r")
        t.expect("exec cat\n")
        _until_runs(t, "cat")
        t.type("one\r")
        t.expect("one\none\n")
        t.type("\x1a")
        t.expect("Stopped")
        t.expect("host> ")
        t.type("stty -a | grep -o ' icanon'; fg\r")
        t.expect(" icanon\n")
        t.expect("exec cat\n")
        t.type("two\r")
        t.expect("two\n")
        t.expect("two\n")
        t.type("\x04")
        t.expect("host> ")
        t.type("exit\r")
        assert t.end() == 0


def test_in_the_background_the_terminal_is_left_alone(root: Path) -> None:
    """It prints, and stops where it wants to read, as any background job; fg lets it."""
    with running(["/bin/bash", "--norc", "-i"], {**environment(root), "PS1": "host> "}) as t:
        t.expect("host> ")
        t.type("$VIRT exec sh -c 'echo first; read line; echo got $line' &\r")
        t.expect("first\n")
        t.type("\r")
        _await(t, "Stopped", typing="\r")
        t.type("fg\r")
        # What is typed before the shell has left its line belongs to the shell.
        t.expect("fg\n")
        t.expect("read line")
        t.type("hello\r")
        t.expect("got hello\n")
        t.expect("host> ")
        t.type("exit\r")
        assert t.end() == 0


def test_a_pager_behind_us_keeps_its_keys(root: Path) -> None:
    """What is typed while we are in a pipe is for whoever reads the terminal, until our command does."""
    script = "$VIRT exec sh -c 'seq 3; sleep 1' | { read a; read b </dev/tty; cat; echo key=$b; }"
    with running(shell(root, script), environment(root)) as terminal:
        terminal.type("mine\r")
        terminal.expect("key=mine\n")
        assert terminal.end() == 0


def test_input_from_a_pipe_leaves_output_on_the_terminal(root: Path) -> None:
    """Each descriptor is replaced by itself: 0 is the pipe, 1 is a terminal of its own."""
    script = "echo piped | $VIRT exec sh -c 'cat; test -t 0 || test -t 1 && tty </dev/tty'"
    with running(shell(root, script), environment(root)) as terminal:
        terminal.expect("piped\n")
        terminal.expect("/dev/")
        assert terminal.end() == 0


def test_output_to_a_pipe_leaves_input_on_the_terminal(root: Path) -> None:
    """A command that wants to read gets the keys, though its output goes elsewhere."""
    script = "$VIRT exec sh -c 'read line; echo got $line' | cat"
    with running(shell(root, script), environment(root)) as terminal:
        _until_runs(terminal, "sh")
        terminal.type("typed\r")
        terminal.expect("got typed\n")
        assert terminal.end() == 0


@pytest.mark.parametrize("option", ["--no-tty", "--stdin"])
def test_descriptors_pass_as_they_are_on_request(root: Path, option: str) -> None:
    """The caller's own terminal, which has no name inside, and is no controlling one there."""
    script = f"$VIRT exec {option} sh -c 'tty; test -t 0 && echo terminal; (: </dev/tty) 2>/dev/null || echo none'"
    with running(shell(root, script), environment(root)) as terminal:
        terminal.expect("terminal\nnone\n")
        assert terminal.end() == 0
        assert "/dev/pts" not in terminal.shown


@pytest.mark.parametrize("victim", ["command", "init"])
def test_the_terminal_is_as_before_whoever_is_killed(root: Path, victim: str) -> None:
    """SIGKILL inside: what was raw is as the caller had it, to the last bit."""
    script = "stty intr ^K; stty -g; $VIRT exec sh -c 'stty -echo; echo ready; exec sleep 600'; echo; stty -g"
    with running(shell(root, script), environment(root)) as terminal:
        before = terminal.expect("\n")
        terminal.expect("ready\n")
        init = _until_runs(terminal, "virt-init")
        target = _until_runs(terminal, "sleep") if victim == "command" else init
        os.kill(target, signal.SIGKILL)
        assert terminal.end() == 0
    assert terminal.shown.rstrip().rpartition("\n")[2] == before


def test_nothing_is_left_when_the_terminal_goes_away(root: Path) -> None:
    """The caller's window is closed: the command hangs up, and all of it ends."""
    with running([str(VIRT), "exec", "sh", "-c", "echo ready; sleep 600"], environment(root)) as t:
        t.expect("ready\n")
        init = _until_runs(t, "virt-init")
        _until_runs(t, "sleep")
        os.close(t._fd)
        t._fd = os.open("/dev/null", os.O_RDONLY)
        _, status = os.waitpid(t.pid, 0)
        t._status = os.waitstatus_to_exitcode(status)
        assert t._status == -signal.SIGHUP
        until(lambda: not processes.is_there(init), "all of it ends")


def test_nothing_is_left_when_the_outer_side_is_killed(root: Path) -> None:
    """SIGKILL of virt itself: no process, and the number of terminals is what it was."""
    before = Path("/proc/sys/kernel/pty/nr").read_text()
    with running([str(VIRT), "exec", "sh", "-c", "echo ready; sleep 600"], environment(root)) as t:
        t.expect("ready\n")
        init = _until_runs(t, "virt-init")
        t.kill()
        until(lambda: not processes.is_there(init), "all of it ends")
    # Of the whole machine: another test may have some, for a while.
    until(lambda: int(Path("/proc/sys/kernel/pty/nr").read_text()) <= int(before), "none is left")


def test_much_text_comes_whole(root: Path) -> None:
    """The last line arrives before the status, however much there was before it."""
    with running([str(VIRT), "exec", "seq", "20000"], environment(root)) as terminal:
        assert terminal.end() == 0
    assert terminal.shown.split() == [str(number) for number in range(1, 20001)]


def test_much_typing_comes_whole(root: Path) -> None:
    """More than a terminal's queue holds, while the command is not yet reading."""
    script = "stty raw -echo; echo ready; sleep 0.5; head -c 20000 | wc -c"
    with running([str(VIRT), "exec", "sh", "-c", script], environment(root)) as terminal:
        terminal.expect("ready")
        for _ in range(20):
            terminal.type("line\n" * 200)
        terminal.expect("20000")
        assert terminal.end() == 0


@pytest.mark.parametrize("user", ["root", "bob"])
def test_a_login_shell_is_at_home_and_says_where(root: Path, user: str) -> None:
    """`virt shell`: argv[0] with a dash, the home, and a prompt with the domain's name."""
    argv = [str(VIRT), "shell", "domain1.com", "--user", user]
    mark = "#" if user == "root" else "$"
    home = "/" if user == "root" else "/home/bob"  # this tree has no /root
    with running(argv, environment(root)) as terminal:
        terminal.expect(f"{user}@domain1.com:{home}{mark} ")
        terminal.type("echo $0 $HOME; exit 4\r")
        terminal.expect("-sh /root\n" if user == "root" else "-bobsh /home/bob\n")
        assert terminal.end() == 4


def test_a_login_shell_takes_options_on_both_sides(root: Path) -> None:
    """And neither a command nor --all."""
    for words in (
        ["domain1.com", "--cwd", "/etc"],
        ["--cwd", "/etc", "domain1.com"],
        ["--cwd=/etc"],
    ):
        done = subprocess.run(
            [VIRT, "shell", *words],
            env=environment(root),
            input="pwd\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "/etc\n")
    for words in (["domain1.com", "ls"], ["--all"], ["--bogus"], ["domain1.com", "--match", "*"]):
        assert (
            subprocess.run(
                [VIRT, "shell", *words], env=environment(root), capture_output=True, check=False
            ).returncode
            == 125
        )


def _await(terminal: Terminal, text: str, *, typing: str) -> None:
    """Type until a text shows: a shell tells of jobs at its next prompt only."""

    def shows() -> bool:
        terminal.type(typing)
        terminal._read(time.monotonic() + 0.2)
        return text in terminal.shown

    until(shows, lambda: terminal.shown)
    terminal._seen = len(terminal.shown)


def _until_runs(terminal: Terminal, name: str) -> int:
    """Wait until a program of that name runs below the terminal's; its pid."""
    found: list[int] = []

    def runs() -> list[int]:
        found[:] = [pid for pid in processes.below(terminal.pid) if processes.name(pid) == name]
        return found

    until(runs, lambda: f"{name} runs: {terminal.shown}")
    return found[0]
