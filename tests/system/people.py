"""Ordinary users of this machine, with and without ranges of subordinate ids, and `virt` run by them."""

import ctypes
import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system import ground
from tests.system.calls import VIRT, Done
from tests.system.handmade import REPOSITORY
from tests.system.waiting import PATIENCE, until

_CLONE_NEWNS = 0x20000
_MS_BIND = 0x1000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_COUNT = 65536


@dataclass(frozen=True, slots=True)
class Person:
    """A user that only this test run knows. data: where trees lie unless told otherwise."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def data(self) -> Path:
        return self.home / ".local/share/virttools"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        }

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> Done:
        """Run any program as this user, its status and what it said."""
        done = subprocess.run(
            words,
            env={**self.environment(), **(env or {})},
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=PATIENCE,
            preexec_fn=self.become,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `virt` and do not wait."""
        return subprocess.Popen(
            [str(VIRT), *words],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            preexec_fn=self.become,  # noqa: PLW1509  no test starts threads
        )

    def __call__(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        return self.run(str(VIRT), *words, env=env)

    def good(self, *words: str) -> str:
        """A call of `virt` that must succeed; what it printed."""
        done = self(*words)
        assert done.status == 0, f"virt {' '.join(words)}: {done.status}\n{done.out}{done.err}"
        return done.out

    def json(self, *words: str) -> Any:  # noqa: ANN401  each command has keys of its own
        return json.loads(self.good("--json", *words))["data"]

    def become(self) -> None:
        """For a forked child."""
        become(self.uid, self.gid)


@contextmanager
def person(name: str, *, ranges: Sequence[tuple[int, int]] = ()) -> Iterator[Person]:
    """A new user with a home, and these ranges of subuid(5) and subgid(5), in an /etc of this process's own."""
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix=f"{name}.") as folder,
        _etc_of_ones_own(Path(folder, "etc")),
    ):
        Path(folder).chmod(0o755)
        with suppress(KeyError):
            pwd.getpwnam(name)
            subprocess.run(["userdel", name], check=True)  # the machine's own of that name
        home = Path(folder, "home")
        words = [
            "useradd",
            "--no-log-init",
            "--no-create-home",
            "--user-group",
            "--home-dir",
            str(home),
        ]
        subprocess.run(
            [*words, "--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0", name], check=True
        )
        for start, count in ranges:
            last = start + count - 1
            words = ["--add-subuids", f"{start}-{last}", "--add-subgids", f"{start}-{last}"]
            subprocess.run(["usermod", *words, name], check=True)
        found = pwd.getpwnam(name)
        home.mkdir(mode=0o700)
        os.chown(home, found.pw_uid, found.pw_gid)
        yield Person(name, found.pw_uid, found.pw_gid, home)


@contextmanager
def _etc_of_ones_own(copy: Path) -> Iterator[None]:
    """Let what is written to /etc be seen here only: other tests look at the machine's users meanwhile."""
    subprocess.run(["cp", "-a", "/etc", copy], check=True)
    ground.leave_mounts()
    subprocess.run(["mount", "--bind", copy, "/etc"], check=True)
    try:
        yield
    finally:
        # Whoever looks for the users of a tree has each folder of each process open for a moment.
        until(lambda: subprocess.run(["umount", "/etc"], check=False).returncode == 0, "umount")


def become(uid: int, gid: int) -> None:
    """For a forked child: have all that is needed within reach, and be that user from now on."""
    lay_open()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def lay_open() -> None:
    """For a forked child: where only root can pass to the interpreter or the checkout, for this process anybody can."""
    folders = (Path(os.path.realpath(sys.executable)).parents[1], REPOSITORY)
    closed = {folder: shut for folder in folders if (shut := _closed(folder))}
    if not closed:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.unshare(_CLONE_NEWNS))
    fds = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in closed}
    _done(libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None))
    for place in sorted({shut[-1] for shut in closed.values()}):
        _done(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"mode=755"))
    for folder, fd in fds.items():
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _done(libc.mount(b"/proc/self/fd/%d" % fd, os.fsencode(folder), None, _MS_BIND, None))
        os.close(fd)


def _closed(folder: Path) -> list[Path]:
    """The folders above it which others may not pass, the nearest first."""
    return [path for path in folder.parents if not path.stat().st_mode & 0o001]


def _done(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


Persons = Callable[[], Person]
