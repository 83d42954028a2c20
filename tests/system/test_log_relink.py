"""dev/log of a domain: bound and linked at create, linked anew, and what its owner may have planted there."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.calls import VIRT, Virt
from tests.system.ground import leave_mounts, mounted
from tests.system.logdaemons import PRIVATE_DEV
from tests.system.waiting import PATIENCE
from virttools.devlog.relink import relink
from virttools.errors import ApplyError
from virttools.tree.root import open_root

DOMAIN = "domain1.com"


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A log daemon as small as can be: it binds the name anew, whatever was there."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(PATIENCE)
        yield daemon


def manifest(folder: Path, devlog: str) -> str:
    file = folder / "manifest.toml"
    file.write_text(f'binaries = ["true"]\ndevices = ["null"]\ndevlog = "{devlog}"\n')
    return str(file)


def created(virt: Virt, folder: Path, devlog: str, *names: str) -> None:
    virt.create("-m", manifest(folder, devlog), *(names or (DOMAIN,)))


def state(virt: Virt) -> str:
    """What status says of the one domain there is."""
    (line,) = virt("log", "status").out.splitlines()
    return line.split("\t")[2]


def inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def test_create_binds_a_socket_of_the_domains_own(virt: Virt, tmp_path: Path) -> None:
    """It lies outside the tree, all may write to it, its path is not told inside, and it goes with the domain."""
    created(virt, tmp_path, "own", DOMAIN, "domain2.com")
    own, link = virt.root / ".virt/log" / DOMAIN, virt.tree(DOMAIN) / "dev/log"
    assert stat.filemode(link.lstat().st_mode) == "srw-rw-rw-"
    assert inode(own) == inode(link)
    assert inode(link) != inode(virt.tree("domain2.com") / "dev/log")
    entries = virt.json("create", "--dry-run", "-m", str(tmp_path / "manifest.toml"), "new.example")
    (planned,) = (one for one in entries["plans"][0]["actions"] if one["action"] == "socket")
    assert planned["source"] == ".virt/log/new.example"
    virt.good("remove", "--yes", DOMAIN)
    assert os.listdir(virt.root / ".virt/log") == ["domain2.com"]


def test_a_name_too_long_for_an_address_gets_a_socket_too(virt: Virt, tmp_path: Path) -> None:
    """sun_path has room for 107 bytes; a domain's name may have 253."""
    name = ".".join(["a" * 60] * 4)
    created(virt, tmp_path, "own", name)
    assert inode(virt.root / ".virt/log" / name) == inode(virt.tree(name) / "dev/log")


def test_what_a_failed_create_bound_is_gone(virt: Virt, tmp_path: Path) -> None:
    """A domain that was not made has no socket; neither has one that a crash left half made."""
    file = tmp_path / "manifest.toml"
    file.write_text('binaries = ["true"]\n[[hooks]]\nphase = "built"\nrun = ["/bin/false"]\n')
    done = virt("create", "-m", str(file), DOMAIN)
    assert done.status != 0
    assert os.listdir(virt.root / ".virt/log") == []
    (virt.root / ".virt/log/gone.example").touch()
    created(virt, tmp_path, "own")
    assert os.listdir(virt.root / ".virt/log") == [DOMAIN]


def test_without_the_shared_socket_create_says_so(virt: Virt, tmp_path: Path) -> None:
    """The domain is made, with a warning; once a daemon listens, relink links it."""
    done = virt("create", "-m", manifest(tmp_path, "shared"), DOMAIN)
    assert (done.status, "there is no /dev/log" in done.err) == (0, True)
    assert state(virt) == "missing"
    refused = virt("log", "relink", DOMAIN)
    assert (refused.status, "there is no socket" in refused.err) == (69, True)
    with listening(virt.root / "log") as daemon:
        assert virt.good("log", "relink", DOMAIN) == f"relinked {DOMAIN}\n"
        assert state(virt) == "fresh"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
            program.sendto(b"<13>hello", str(virt.tree(DOMAIN) / "dev/log"))
        assert daemon.recv(100) == b"<13>hello"
        assert virt.good("log", "relink", "--all") == ""
        assert os.listdir(virt.tree(DOMAIN) / "dev") == sorted(["log", "null"])
    assert state(virt) == "nobody listening"


def test_relink_asks_what_to_relink(virt: Virt, tmp_path: Path) -> None:
    """Neither a name nor --all, both, and a name that is none: said, and nothing done."""
    created(virt, tmp_path, "shared")
    assert virt("log", "relink").status == 2
    assert virt("log", "relink", "--all", DOMAIN).status == 2
    assert virt("log", "relink", "nobody.example").status == 68


PLANTED = ("a link", "a link inside", "a file", "a fifo", "nothing")


def plant(what: str, where: Path, outside: Path) -> None:
    match what:
        case "a link":
            where.symlink_to(outside)
        case "a link inside":
            where.symlink_to("etc")
        case "a file":
            where.touch()
        case "a fifo":
            os.mkfifo(where)
        case _:
            assert not where.exists()


@pytest.mark.parametrize("what", PLANTED)
def test_what_was_planted_for_dev_is_not_touched(virt: Virt, tmp_path: Path, what: str) -> None:
    """/dev is a link, a file, a fifo, or gone: one sentence says so, and nothing changes anywhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "log").write_text("a victim\n")
    with listening(virt.root / "log"):
        created(virt, tmp_path, "shared")
        tree = virt.tree(DOMAIN)
        (tree / "dev").rename(tree / "was-dev")
        plant(what, tree / "dev", outside)
        (virt.root / "log").unlink()
    with listening(virt.root / "log"):
        before = sorted((str(path), inode(path)) for path in tree.rglob("*"))
        done = virt("log", "relink", "--all")
        assert done.status == 74
        cause = "it has no folder /dev" if what == "nothing" else "its /dev is no folder"
        assert f"cannot relink /dev/log of {DOMAIN}: {cause}" in done.err
        assert state(virt) == ("missing" if what == "nothing" else "replaced")
        assert sorted((str(path), inode(path)) for path in tree.rglob("*")) == before
    assert [path.name for path in outside.iterdir()] == ["log"]
    assert (outside / "log").read_text() == "a victim\n"


@pytest.mark.parametrize("what", ["a link", "a file", "a fifo"])
def test_what_was_planted_at_dev_log_loses_its_name(virt: Virt, tmp_path: Path, what: str) -> None:
    """/dev/log itself is replaced by rename: where it led is not looked at."""
    victim = tmp_path / "victim"
    victim.write_text("a victim\n")
    with listening(virt.root / "log"):
        created(virt, tmp_path, "shared")
        link = virt.tree(DOMAIN) / "dev/log"
        link.unlink()
        plant(what, link, victim)
        assert state(virt) == ("missing" if what == "a link" else "replaced")
        virt.good("log", "relink", DOMAIN)
        assert state(virt) == "fresh"
    assert victim.read_text() == "a victim\n"


def test_a_folder_at_dev_log_is_said(virt: Virt, tmp_path: Path) -> None:
    """No rename replaces a folder; nothing is left beside it."""
    with listening(virt.root / "log"):
        created(virt, tmp_path, "shared")
        link = virt.tree(DOMAIN) / "dev/log"
        link.unlink()
        link.mkdir()
        assert state(virt) == "replaced"
        done = virt("log", "relink", DOMAIN)
        assert (done.status, "/dev/log is a folder" in done.err) == (74, True)
    assert sorted(os.listdir(link.parent)) == ["log", "null"]


def test_a_tree_on_another_file_system_gets_the_socket_mounted(virt: Virt, tmp_path: Path) -> None:
    """A link cannot be; --bind mounts the socket, and mounts it anew when it went stale."""
    leave_mounts()
    with listening(virt.root / "log"):
        created(virt, tmp_path, "shared")
        with mounted(virt.tree(DOMAIN) / "dev", "-t", "tmpfs", "tmpfs"):
            try:
                assert state(virt) == "other file system"
                done = virt("log", "relink", DOMAIN)
                assert (done.status, "relink --bind" in done.err) == (69, True)
                virt.good("log", "relink", "--bind", DOMAIN)
                assert state(virt) == "fresh"
                with listening(virt.root / "log") as daemon:
                    assert state(virt) in {"stale", "other file system"}
                    virt.good("log", "relink", "--bind", DOMAIN)
                    assert state(virt) == "fresh"
                    assert virt.good("log", "relink", "--bind", DOMAIN) == ""
                    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
                        program.sendto(b"mounted", str(virt.tree(DOMAIN) / "dev/log"))
                    assert daemon.recv(100) == b"mounted"
                    mounts = Path("/proc/self/mounts").read_text()
                    assert mounts.count(f"{virt.tree(DOMAIN)}/dev/log ") == 1
            finally:
                subprocess.run(["umount", str(virt.tree(DOMAIN) / "dev/log")], check=True)


def test_a_listener_in_another_network_namespace_is_seen(virt: Virt, tmp_path: Path) -> None:
    """NETLINK_SOCK_DIAG tells of its own namespace only; sockets that have a path know no such border."""
    with listening(virt.root / "log"):
        created(virt, tmp_path, "shared")
        words = ["unshare", "--net", str(VIRT), "log", "status"]
        done = subprocess.run(
            words, env=virt.environment(), capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, f"{DOMAIN}\tshared\tfresh\t-\n")


def test_dev_that_changes_all_the_time_leads_nowhere(virt: Virt, tmp_path: Path) -> None:
    """While its owner swaps dev for a link and back, whatever is relinked is relinked in the tree."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "log").write_text("a victim\n")
    with listening(virt.root / "log"), listening(virt.root / ".other"):
        created(virt, tmp_path, "shared")
        dev = virt.tree(DOMAIN) / "dev"
        ends = threading.Event()
        swapper = threading.Thread(target=swap, args=(dev, outside, ends))
        swapper.start()
        try:
            done = [is_refused(virt.root) for _ in range(400)]
            while len(set(done)) < 2 and len(done) < 20000:
                done.append(is_refused(virt.root))
        finally:
            ends.set()
            swapper.join()
        assert {True, False} == set(done), "the race was not run"
        virt.good("log", "relink", "--all")
        assert state(virt) == "fresh"
    assert [path.name for path in outside.iterdir()] == ["log"]
    assert (outside / "log").read_text() == "a victim\n"
    assert sorted(os.listdir(dev)) == ["log", "null"]


def swap(dev: Path, outside: Path, ends: threading.Event) -> None:
    away = dev.with_name("away")
    while not ends.is_set():
        dev.rename(away)
        dev.symlink_to(outside)
        dev.unlink()
        away.rename(dev)


def is_refused(root_path: Path) -> bool:
    """Swap the shared socket for the other one, and relink; True where dev was found to be wrong."""
    os.rename(root_path / "log", root_path / ".third")
    os.rename(root_path / ".other", root_path / "log")
    os.rename(root_path / ".third", root_path / ".other")
    with open_root(str(root_path)) as root:
        (head,) = root.heads()
        try:
            relink(root, head)
        except ApplyError:
            return True
    return False


def test_watch_relinks_when_the_daemon_binds_anew(virt: Virt, tmp_path: Path) -> None:
    """No one calls relink: `watch` sees each new socket, by bind or rename, and tells."""
    with listening(virt.root / "log"):
        created(virt, tmp_path, "shared", DOMAIN, "domain2.com")
        watch = subprocess.Popen(
            [str(VIRT), "log", "watch"],
            env=virt.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        assert watch.stdout is not None
        both = {f"relinked {DOMAIN}\n", "relinked domain2.com\n"}
        with listening(virt.root / "log"):
            assert {watch.stdout.readline(), watch.stdout.readline()} == both
            assert set(virt.good("log", "status").splitlines()) == {
                f"{name}\tshared\tfresh\t-" for name in (DOMAIN, "domain2.com")
            }
        with listening(virt.root / ".log.new"):
            (virt.root / ".log.new").rename(virt.root / "log")
            assert {watch.stdout.readline(), watch.stdout.readline()} == both
    finally:
        watch.terminate()
        watch.communicate()


SETUP = """
import os, socket, subprocess, sys
virt, root = sys.argv[1:]
def call(*words):
    done = subprocess.run([virt, "--root", root, *words], capture_output=True, text=True)
    return done.returncode, done.stderr
def at(path):
    return os.readlink(path) if os.path.islink(path) else os.lstat(path).st_ino
old = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
old.bind("/dev/log")
was = at("/dev/log")
assert call("log", "setup")[0] == 0
assert at("/dev/log") == root + "/log"
assert at("/dev/log.before-virt") == was
assert call("log", "setup")[0] == 0
assert at("/dev/log.before-virt") == was
# A crash between the two steps leaves what is kept, and the old name: the next run goes on.
os.rename("/dev/log.before-virt", "/dev/log")
os.link("/dev/log", "/dev/log.before-virt")
os.symlink("elsewhere", "/dev/.log.virt")
assert call("log", "setup")[0] == 0
assert at("/dev/log") == root + "/log"
assert call("log", "setup", "--undo")[0] == 0
assert at("/dev/log") == was
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect("/dev/log")
assert sorted(os.listdir("/dev")) == ["log", "null", "urandom"]
assert call("log", "setup", "--undo")[0] == 0
assert at("/dev/log") == was
# There was nothing: nothing comes back.
os.unlink("/dev/log")
assert call("log", "setup")[0] == 0
assert call("log", "setup", "--undo")[0] == 0
assert not os.path.lexists("/dev/log")
# Somebody made it anew meanwhile.
os.symlink("x", "/dev/log")
assert call("log", "setup")[0] == 0
os.unlink("/dev/log")
assert call("log", "setup", "--undo")[0] == 73
os.unlink("/dev/log.before-virt")
# systemd-journald's own is left alone.
os.symlink("/run/systemd/journal/dev-log", "/dev/log")
status, said = call("log", "setup")
assert status == 75 and "systemd-journald owns it" in said and "hint:" in said, said
assert at("/dev/log") == "/run/systemd/journal/dev-log"
"""


def test_setup_makes_the_link_of_the_howto_and_takes_it_back(virt: Virt) -> None:
    """In a /dev that nobody else sees: what was there comes back whole, whatever came between."""
    script = PRIVATE_DEV + 'exec "$@"'
    words = [sys.executable, "-c", SETUP, str(VIRT), str(virt.root)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *words],
        env=virt.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
