"""Other people's log daemons, as Debian has them, on the shared socket of a root.

Their packages exclude each other, so those are unpacked beside each other, not installed.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.system.fetching import fetched
from tests.system.waiting import PATIENCE, until


class Packages:
    """Debian packages, downloaded by name and unpacked, once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, *names: str) -> Path:
        """The folder that holds what these packages install."""
        target = self._folder / "+".join(names)
        if not target.exists():
            self._unpack(names, target)
        return target

    def _unpack(self, names: Sequence[str], target: Path) -> None:
        download = self._folder / f"{target.name}.download"
        download.mkdir(exist_ok=True)
        found = fetched(download, *names)
        half = self._folder / f"{target.name}.half"
        half.mkdir()
        for package in found:
            subprocess.run(["dpkg-deb", "-x", str(package), str(half)], check=True)
            package.unlink()
        half.rename(target)
        download.rmdir()


class Daemon:
    """A log daemon that binds ROOT/log and writes ROOT/said, unless it is told otherwise."""

    def __init__(
        self,
        root: Path,
        argv: Sequence[str],
        env: dict[str, str],
        sockets: Sequence[str] = ("log",),
    ) -> None:
        self.root = root
        self._sockets = sockets
        self._argv = [*argv]
        self._env = {"PATH": os.environ["PATH"], **env}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            self._argv, env=self._env, stdin=subprocess.DEVNULL, start_new_session=True
        )
        until(lambda: all(listens(self.root / one) for one in self._sockets), "it listens")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def said(self) -> str:
        file = self.root / "said"
        return file.read_text(errors="replace") if file.exists() else ""

    def await_text(self, text: str) -> None:
        until(lambda: text in self.said(), lambda: f"{text!r} in {self.said()}")


def listens(path: Path) -> bool:
    """Whether a datagram can be sent to that socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
        return True


def rsyslog(root: Path, packages: Packages, more: str | None = None) -> Daemon:
    """more: configuration in place of the shared socket."""
    home = packages.get("rsyslog")
    conf = root / "conf.rsyslog"
    own = f'input(type="imuxsock" Socket="{root}/log")\n*.* {root}/said\n'
    conf.write_text('module(load="imuxsock" SysSock.Use="off")\n' + (own if more is None else more))
    modules = next(home.glob("usr/lib/*/rsyslog"))
    program = home / "usr/sbin/rsyslogd"
    words = ["-n", "-f", str(conf), "-i", str(root / "conf.pid"), "-M", str(modules)]
    return Daemon(root, [str(program), *words], {}, sockets_of(root, more))


def sockets_of(root: Path, more: str | None) -> list[str]:
    """The shared one, and those of all domains where a daemon is configured for these."""
    return ["log"] if more is None else ["log", *map(str, (root / ".virt/log").iterdir())]


def syslog_ng(root: Path, packages: Packages, more: str | None = None) -> Daemon:
    """more: configuration in place of the shared socket."""
    home = packages.get("syslog-ng-core")
    libraries = home / "usr/lib/syslog-ng"
    own = (
        f'source s {{ unix-dgram("{root}/log"); }};\n'
        f'destination d {{ file("{root}/said"); }};\n'
        "log { source(s); destination(d); };\n"
    )
    conf = root / "conf.syslog-ng"
    conf.write_text("@version: 3.38\n" + (own if more is None else more))
    modules = next(libraries.glob("3.*"))
    words = ["-F", "-f", str(conf), "--module-path", str(modules)]
    words += [f"--{name}={root}/conf.{name}" for name in ("persist-file", "control", "pidfile")]
    env = {"LD_LIBRARY_PATH": str(libraries)}
    argv = [str(home / "usr/sbin/syslog-ng"), *words]
    return Daemon(root, argv, env, sockets_of(root, more))


def inetutils(root: Path, packages: Packages) -> Daemon:
    home = packages.get("inetutils-syslogd")
    conf = root / "conf.inetutils"
    conf.write_text(f"*.*\t{root}/said\n")
    words = ["-n", "-p", f"{root}/log", "--no-klog", "-f", str(conf), "-P", f"{root}/conf.pid"]
    return Daemon(root, [str(home / "usr/sbin/syslogd"), *words], {})


PRIVATE_DEV = (
    "mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/null c 1 3 && "
    "mknod -m 666 /dev/urandom c 1 9 && "
)
"""For `unshare --mount sh -c`: a /dev that nobody else sees."""


def busybox(root: Path, packages: Packages) -> Daemon:
    """It knows no socket but /dev/log, and follows that where it is a link, as the HOWTO makes it."""
    del packages
    words = f"ln -s {root}/log /dev/log && exec busybox syslogd -n -O {root}/said"
    return Daemon(root, ["unshare", "--mount", "sh", "-c", PRIVATE_DEV + words], {})


DAEMONS: dict[str, Callable[[Path, Packages], Daemon]] = {
    "rsyslogd": rsyslog,
    "syslog-ng": syslog_ng,
    "inetutils-syslogd": inetutils,
    "busybox": busybox,
}


@contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
