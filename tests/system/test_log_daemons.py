"""dev/log with other people's daemons: the HOWTO's one socket, and a socket for each domain by HostName."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import logdaemons
from tests.system.calls import Virt
from tests.system.logdaemons import DAEMONS, Daemon, Packages, running
from tests.system.waiting import until

DOMAINS = ("domain1.com", "domain2.com")

PROGRAM = r"""
#include <syslog.h>
int main(int argc, char **argv) {
    openlog("libc", LOG_PID, LOG_MAIL);
    syslog(LOG_WARNING, "%s", argv[1]);
    return 0;
}
"""


@pytest.fixture
def packages(request: pytest.FixtureRequest) -> Packages:
    assert request.config.cache is not None
    return Packages(request.config.cache.mkdir("log-daemons"))


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[str], Path]:
    """A small tree with logger(1) and a program that calls syslog(3)."""
    program = tmp_path / "says"
    subprocess.run(
        ["gcc", "-x", "c", "-o", str(program), "-"], input=PROGRAM, text=True, check=True
    )

    def written(devlog: str) -> Path:
        file = tmp_path / "manifest.toml"
        file.write_text(
            f'binaries = ["logger"]\ndevices = ["null"]\ndevlog = "{devlog}"\n'
            f'[[files]]\nfrom = "{program}"\nto = "/bin/says"\n'
        )
        return file

    return written


def say(virt: Virt, text: str) -> None:
    """Each domain logs, by logger(1) and by syslog(3)."""
    for domain in DOMAINS:
        virt.good("exec", "--domain", domain, "--", "logger", "-t", "logger", f"{text} {domain}")
        virt.good("exec", "--domain", domain, "--", "says", f"libc {text} {domain}")


def states(virt: Virt) -> set[str]:
    done = virt("log", "status")
    found = {line.split("\t")[2] for line in done.out.splitlines()}
    assert done.status == (0 if found == {"fresh"} else 1)
    return found


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_hears_every_tree_and_a_restart_is_mended(
    virt: Virt, packages: Packages, manifest: Callable[[str], Path], name: str
) -> None:
    """One socket, hard-linked: all is heard; after a restart `status` says stale and `relink` mends it."""
    with running(DAEMONS[name](virt.root, packages)) as daemon:
        virt.create("-m", str(manifest("shared")), *DOMAINS)
        assert states(virt) == {"fresh"}
        heard(virt, daemon, "before")
        daemon.stop()
        assert states(virt) == {"nobody listening"}
        daemon.start()
        assert states(virt) == {"stale"}
        told = virt.good("log", "relink", "--all")
        assert told.splitlines() == [f"relinked {domain}" for domain in DOMAINS]
        assert states(virt) == {"fresh"}
        heard(virt, daemon, "after")


def heard(virt: Virt, daemon: Daemon, text: str) -> None:
    say(virt, text)
    for domain in DOMAINS:
        daemon.await_text(f": {text} {domain}")
        daemon.await_text(f": libc {text} {domain}")


def check_rendered(virt: Virt, daemon: Daemon, logs: Path) -> None:
    """What a domain says is in its own file and in the one of all, whatever the message claims."""
    with running(daemon):
        assert states(virt) == {"stale", "missing"}
        virt.good("log", "relink", "--all")
        assert states(virt) == {"fresh"}
        say(virt, "rendered")
        virt.good("exec", "--domain", "shared.example", "--", "says", "from nobody known")
        await_text(logs / "domains/-.log", "libc")
        send(virt.tree("domain1.com") / "dev/log", "<13>Nov 20 10:00:00 domain2.com x[1]: forged")
        for domain in DOMAINS:
            await_text(logs / "domains" / f"{domain}.log", f"libc rendered {domain}")
            await_text(logs / "all.log", f"libc rendered {domain}")
        await_text(logs / "domains/domain1.com.log", "forged")
    assert "forged" not in text_of(logs / "domains/domain2.com.log")
    assert "rendered domain1.com" not in text_of(logs / "domains/domain2.com.log")
    tail = virt.good("log", "tail", "--logs", str(logs), "--domain", "domain2.com")
    assert [line.split()[1] for line in tail.splitlines()] == ["domain2.com"] * 2


def await_text(file: Path, text: str) -> None:
    until(lambda: text in text_of(file), lambda: f"{text!r} in {text_of(file)}")


def send(path: Path, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        caller.sendto(text.encode(), str(path))


def text_of(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


RENDERED = {"rsyslog": logdaemons.rsyslog, "syslog-ng": logdaemons.syslog_ng}


@pytest.mark.parametrize("kind", RENDERED)
def test_what_is_rendered_for_a_daemon_splits_by_domain(
    virt: Virt,
    packages: Packages,
    manifest: Callable[[str], Path],
    tmp_path: Path,
    kind: str,
) -> None:
    """The real daemon takes the rendered text, and files each domain's messages under its name."""
    virt.create("-m", str(manifest("own")), *DOMAINS)
    virt.create("-m", str(manifest("shared")), "shared.example")
    logs = tmp_path / "logs"
    rendered = virt.good("render", kind, "--logs", str(logs))
    check_rendered(virt, RENDERED[kind](virt.root, packages, rendered), logs)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, which tmp_path is not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("owner", [(0, 0), (1, 4)])
def test_logrotate_takes_what_is_rendered(
    virt: Virt, open_folder: Path, owner: tuple[int, int]
) -> None:
    """The real logrotate reads the text without complaint, and rotates the files it names."""
    logs = open_folder / "logs"
    (logs / "domains").mkdir(parents=True)
    for file in (logs / "all.log", logs / "domains/domain1.com.log"):
        file.write_text("line\n")
    for path in (logs, *logs.rglob("*")):
        os.chown(path, *owner)
    conf = open_folder / "virt"
    conf.write_text(virt.good("render", "logrotate", "--logs", str(logs)))
    conf.chmod(0o644)
    done = subprocess.run(
        ["logrotate", "--force", "--state", str(open_folder / "state"), str(conf)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in logs.rglob("*.1")) == ["all.log.1", "domain1.com.log.1"]
