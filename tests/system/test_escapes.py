"""The known ways for root out of a chroot: each gets out of a plain one, and none out of a cell."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.handmade import REPOSITORY, VIRT, tree
from tests.system.terminal import running
from tests.system.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("as_root")

SOURCE = REPOSITORY / "tests" / "escapes" / "escape.c"
OUTSIDE = "this lies outside"
# What a plain chroot mounts would stay on this host otherwise.
ALONE = ("unshare", "--mount", "--propagation", "private")


class Prison:
    """A domain that holds the program `escape`, and outside of it a file and a process to reach."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.tree = tree(self.root / "domain1.com", "true", "sleep")
        self.tree.joinpath("proc").mkdir()
        self.tree.joinpath("usr").mkdir()
        self.program = self.tree / "bin" / "escape"
        subprocess.run(["gcc", "-static", "-O1", "-o", self.program, SOURCE], check=True)
        self.marker = folder / "marker"
        self.marker.write_text(OUTSIDE)

    def plainly(self, *words: str) -> str:
        """What `escape` reaches in a plain chroot."""
        return self.run(*ALONE, VIRT, "exec", "--chroot", "--proc", "--", "escape", *words)

    def contained(self, *words: str) -> str:
        return self.run(VIRT, "exec", "--", "escape", *words)

    def run(self, *argv: str | Path) -> str:
        done = subprocess.run(
            argv,
            env={"VIRT_ROOT": str(self.root), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.stderr == ""
        assert done.stdout.startswith("out: " if done.returncode == 0 else "stopped at ")
        return done.stdout


@pytest.fixture(scope="module")
def prison(tmp_path_factory: pytest.TempPathFactory) -> Prison:
    """One for all tests here: nobody gets anything in it changed."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return Prison(tmp_path_factory.mktemp("prison"))


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this host, ours to lose."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("way", ["second-chroot", "kept-descriptor", "passed"])
def test_a_root_below_the_working_directory_leads_nowhere(prison: Prison, way: str) -> None:
    """A second chroot, with the old folder kept as directory, as descriptor, or sent by a socket."""
    assert prison.plainly(way, str(prison.marker)) == f"out: {OUTSIDE}\n"
    assert "No such file" in prison.contained(way, str(prison.marker))


def test_an_open_folder_of_the_caller_does_not_come_along(prison: Prison) -> None:
    """By fchdir to an inherited descriptor: chroot(1) hands it on, neither of our ways does."""
    fd = os.open("/", os.O_RDONLY)
    words = ["escape", "inherited", str(fd), str(prison.marker)]
    told = [
        subprocess.run(
            [*way, *words],
            env={"VIRT_ROOT": str(prison.root), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            pass_fds=[fd],
            check=False,
        ).stdout
        for way in (
            ["chroot", str(prison.tree)],
            [str(VIRT), "exec", "--chroot", "--"],
            [str(VIRT), "exec", "--"],
        )
    ]
    os.close(fd)
    closed = "stopped at fchdir: Bad file descriptor\n"
    assert told == [f"out: {OUTSIDE}\n", closed, closed]


@pytest.mark.parametrize("options", [["--chroot"], []], ids=["plain", "contained"])
def test_a_folder_that_is_moved_out_takes_nobody_along(prison: Prison, options: list[str]) -> None:
    """Somebody outside moves the working directory out of the tree: ".." ends at the tree's root."""
    inner, outer = prison.tree / "moving", prison.root.parent / "moved"
    inner.mkdir()
    process = subprocess.Popen(
        [VIRT, "exec", *options, "--", "escape", "moved", "/moving", str(prison.marker)],
        env={"VIRT_ROOT": str(prison.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: (inner / "ready").exists() or process.poll() is not None, "it is ready")
    assert process.poll() is None
    inner.rename(outer)
    (outer / "go").touch()
    said, _ = process.communicate(timeout=PATIENCE)
    shutil.rmtree(outer)
    assert said.startswith("out: " if options else "stopped at ")


def test_no_mounted_proc_shows_the_host(prison: Prison, victim: subprocess.Popen[bytes]) -> None:
    """Neither one of the prisoner's making, nor the one that is there, nor the root of process 1."""
    words = (str(victim.pid), str(prison.marker))
    assert prison.plainly("mount-proc", *words) == f"out: {OUTSIDE}\n"
    assert prison.contained("mount-proc", *words) == "stopped at mount: Operation not permitted\n"
    assert prison.plainly("root-of", *words) == f"out: {OUTSIDE}\n"
    assert "No such file" in prison.contained("root-of", *words)
    assert "Permission denied" in prison.contained("root-of", "1", str(prison.marker))
    assert "Permission denied" in prison.contained("join", "1")
    assert prison.plainly("join", words[0]) == "out: joined\n"


@pytest.mark.parametrize("way", ["trace", "signal"])
def test_processes_of_the_host_are_out_of_reach(
    prison: Prison, victim: subprocess.Popen[bytes], way: str
) -> None:
    """Contained, a pid of the host is nobody's; in a plain chroot it can be traced and killed."""
    assert prison.contained(way, str(victim.pid)).endswith(": No such process\n")
    assert victim.poll() is None
    assert prison.plainly(way, str(victim.pid)).startswith("out: ")
    if way == "signal":
        assert victim.wait(PATIENCE) == -signal.SIGUSR1


def test_no_device_can_be_made(prison: Prison) -> None:
    """Block devices and memory: what a plain chroot's root can make and read, a cell's cannot make."""
    disk = os.stat(prison.marker).st_dev
    for way, numbers in (("block", (os.major(disk), os.minor(disk))), ("memory", (1, 1))):
        words = (way, *map(str, numbers))
        assert prison.contained(*words) == "stopped at mknod: Operation not permitted\n"
        # Not every machine lets even root read them: then the chroot need not either.
        outside = subprocess.run(
            [prison.program, *words], capture_output=True, text=True, check=False
        )
        assert prison.plainly(*words) == outside.stdout


def test_no_device_can_be_mounted(prison: Prison, tmp_path: Path) -> None:
    """A disk of the host, here a small image of our own."""
    image = tmp_path / "image"
    image.write_bytes(bytes(4 << 20))
    content = tmp_path / "content"
    content.mkdir()
    (content / "marker").write_text(OUTSIDE)
    subprocess.run(["mkfs.ext4", "-q", "-d", content, image], check=True, timeout=PATIENCE)
    done = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", image],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("no loop device")
    device = done.stdout.strip()
    try:
        numbers = os.stat(device).st_rdev
        words = (str(os.major(numbers)), str(os.minor(numbers)), "ext4", "marker")
        assert prison.plainly("mount-device", *words) == f"out: {OUTSIDE}\n"
        assert "mknod: Operation not permitted" in prison.contained("mount-device", *words)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_no_file_is_opened_by_its_number(prison: Prison) -> None:
    """open_by_handle_at reaches every inode of the tree's file system; contained, none."""
    named = subprocess.run(
        [prison.program, "name-handle", prison.marker], capture_output=True, text=True, check=True
    )
    words = ("open-handle", *named.stdout.split())
    assert prison.plainly(*words) == f"out: {OUTSIDE}\n"
    refused = "stopped at open_by_handle_at: Operation not permitted\n"
    assert prison.contained(*words) == refused


def test_a_user_namespace_of_ones_own_undoes_nothing(prison: Prison) -> None:
    """All capabilities in there: neither the read-only folders nor what hides in /proc come off."""
    assert prison.contained("user-namespace", "/usr").startswith("stopped at ")
    assert prison.contained("user-namespace", "/proc/sys").startswith("stopped at ")


def test_the_kernel_is_not_to_be_set(prison: Prison) -> None:
    """What core_pattern names would run on the host, as root."""
    paths = ("sys/kernel/core_pattern", "sys/kernel/hostname", "sysrq-trigger", "irq", "bus", "fs")
    for path in paths:
        if os.path.exists(f"/proc/{path}"):
            said = prison.contained("write", f"/proc/{path}")
            assert said in (
                "stopped at open: Read-only file system\n",
                "stopped at open: Is a directory\n",
            )


WITH_KEYS = """
import ctypes, os, sys
call = ctypes.CDLL(None).syscall
adds, keyctl = {"x86_64": (248, 250)}.get(os.uname().machine, (217, 219))
assert call(keyctl, 1, None) > 0  # KEYCTL_JOIN_SESSION_KEYRING
call(keyctl, 8, -4, -3)  # KEYCTL_LINK, to be allowed to let the key end
for name, ring in ((b"virt-session", -3), (b"virt-user", -4)):
    key = call(adds, b"user", name, b"this lies outside", 17, ring)
    assert key > 0
    assert call(keyctl, 15, key, 60) == 0  # KEYCTL_SET_TIMEOUT
call(keyctl, 9, -4, -3)  # KEYCTL_UNLINK
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("key", ["virt-session", "virt-user"])
def test_keys_of_the_caller_are_nobodys(prison: Prison, key: str) -> None:
    """keyrings(7) know no namespace: chroot(1) hands on those of the session, and root has root's.

    A container that forbids keyrings, as Docker's do, has nothing to hand on.
    """
    escape = ("chroot", prison.tree, "/bin/escape", "keyring", key)
    said = prison.run(*escape)
    if said.endswith(("Function not implemented\n", "Operation not permitted\n")):
        assert prison.contained("keyring", key) == f"stopped at {key}: Function not implemented\n"
        return
    with_keys = (sys.executable, "-c", WITH_KEYS)
    said = prison.run(*with_keys, *escape)
    assert said == f"out: {OUTSIDE}\n"
    for options, error in (
        ((), "Function not implemented"),
        (("--chroot", "--user", "bob"), "Required key not available"),
    ):
        said = prison.run(*with_keys, VIRT, "exec", *options, "--", "escape", "keyring", key)
        assert said == f"stopped at {key}: {error}\n"


@pytest.mark.parametrize("options", [["--chroot"], [], ["--no-tty"]])
def test_no_key_is_typed_into_the_callers_terminal(prison: Prison, options: list[str]) -> None:
    """TIOCSTI: in a plain chroot, what is typed is there for the caller's shell to read."""
    script = 'virt=$1; shift; "$virt" exec "$@"; IFS= read -r -t 1 typed; echo "read=[$typed]"'
    argv = [
        "/bin/bash",
        "-c",
        script,
        "bash",
        str(VIRT),
        *options,
        "--",
        "escape",
        "type",
        "rm -rf\n",
    ]
    with running(argv, {"VIRT_ROOT": str(prison.root), "PATH": os.environ["PATH"]}) as terminal:
        terminal.expect("read=[")
        typed = terminal.expect("]")
        assert terminal.end() == 0
    assert typed == ("rm -rf" if options == ["--chroot"] else "")


def test_our_own_interpreter_is_nobodys_program(prison: Prison) -> None:
    """A link or a script that leads to /proc/self/exe would open a file of the host for writing."""
    link, script = prison.tree / "bin/link", prison.tree / "bin/script"
    link.symlink_to("/proc/self/exe")
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    for name, status in (("link", 127), ("script", 126)):
        done = subprocess.run(
            [VIRT, "exec", "--", name],
            env={"VIRT_ROOT": str(prison.root)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == status
    link.unlink()
    script.unlink()


def test_a_program_that_becomes_a_link_meanwhile_does_not_run(prison: Prison) -> None:
    """The last name is never followed as a link: what was found is what runs, or nothing is."""
    flipper = subprocess.Popen(
        [sys.executable, "-c", _FLIP, prison.tree / "bin"], stdout=subprocess.PIPE
    )
    assert flipper.stdout is not None
    flipper.stdout.readline()
    try:
        told = {_flip(prison) for _ in range(50)}
    finally:
        flipper.kill()
        flipper.communicate()
        for name in ("flip", "next"):
            (prison.tree / "bin" / name).unlink(missing_ok=True)
    assert {status for status, _ in told} <= {0, 126, 127}
    assert all(said.startswith("virt: cannot ") for status, said in told if status)


def _flip(prison: Prison) -> tuple[int, str]:
    done = subprocess.run(
        [VIRT, "exec", "--", "flip"],
        env={"VIRT_ROOT": str(prison.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr.partition("hint:")[0]


_FLIP = """
import os, sys
os.chdir(sys.argv[1])
os.link("true", "flip")
print(flush=True)
while True:
    os.symlink("/proc/self/exe", "next"); os.replace("next", "flip")
    os.link("true", "next"); os.replace("next", "flip")
"""
