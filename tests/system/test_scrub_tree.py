"""Scrubbing a tree whose owner has planted things: nothing outside is read or touched, nothing hangs."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.waiting import PATIENCE, until
from virttools.errors import ApplyError, Busy
from virttools.scrub.findings import Context, Deed, Finding
from virttools.scrub.operations import OPERATIONS
from virttools.scrub.search import find, mend, select
from virttools.scrub.secrets import scan
from virttools.scrub.view import TreeView
from virttools.tree.delete import delete

pytestmark = pytest.mark.usefixtures("as_root")

ALL = select(("all",))
CONTEXT = Context(
    domain="domain1.com", other_names=("domain2.com",), other_addresses=("192.0.2.2",)
)
SECRET = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n"

PLACES = (
    *("etc/shadow", "etc/passwd", "etc/hosts", "etc/hostname", "etc/machine-id", "etc/app.key"),
    *("etc/ssh/ssh_host_rsa_key", "etc/ssl/private/a.key", "root/.netrc", "root/.ssh", "tmp/x"),
    *("home/bob/.aws", "var/log/messages", "var/log/wtmp", "var/log/old.gz", "var/mail/bob"),
    *("etc/sysconfig/network-scripts/ifcfg-x", "root/id_rsa", "srv/domain2.com", "etc/x.bak"),
    *("var/cache/apt/a", "var/lib/cloud/x", "etc/security/opasswd", "etc/gshadow", "run/utmp"),
)
"""A path for each way of mending: removed, emptied, locked, lines dropped, looked into."""


@pytest.fixture
def tree_fd(tmp_path: Path) -> Iterator[int]:
    """An empty tree, open; beside it a host folder that nobody may touch."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "host").mkdir()
    fd = os.open(tmp_path / "tree", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def place(tmp_path: Path, path: str) -> Path:
    """Where a path of the tree is, its folder made."""
    found = tmp_path / "tree" / path
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def host_file(tmp_path: Path, name: str = "secret") -> Path:
    """A file of the host that holds what every operation looks for."""
    path = tmp_path / "host" / name
    hash_ = "$6$salt$" + "a" * 86
    path.write_text(
        f"{SECRET}root:{hash_}:1:0:0:::\n192.0.2.2 domain2.com\nHWADDR=00:11\nHOSTNAME=x\n"
    )
    path.chmod(0o600)
    return path


def state(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """All that can be changed of a file, but for its link count."""
    found = path.stat()
    kept = (found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns)
    return path.read_bytes(), kept


def scrubbed(tree_fd: int) -> tuple[Finding, ...]:
    """Everything there is to find, found and mended; then scanned."""
    found = find(TreeView(tree_fd), CONTEXT, ALL)
    mend(tree_fd, found)
    scan(TreeView(tree_fd), CONTEXT)
    return found


@pytest.mark.parametrize("path", PLACES)
def test_link_to_a_host_file_is_not_followed(path: str, tmp_path: Path, tree_fd: int) -> None:
    """At most the link goes."""
    victim = host_file(tmp_path)
    before = state(victim)
    place(tmp_path, path).symlink_to(victim)
    scrubbed(tree_fd)
    assert state(victim) == before


@pytest.mark.parametrize("path", PLACES)
def test_link_planted_after_the_search_goes_itself(path: str, tmp_path: Path, tree_fd: int) -> None:
    """Found as a file, a link when it is mended: its target is not touched, and it does not stay."""
    victim = host_file(tmp_path)
    where = place(tmp_path, path)
    where.write_bytes(victim.read_bytes())
    found = find(TreeView(tree_fd), CONTEXT, ALL)
    assert any(one.path == f"/{path}" for one in found)
    where.unlink()
    where.symlink_to(victim)
    before = state(victim)
    mend(tree_fd, found)
    assert (state(victim), where.is_symlink()) == (before, False)


@pytest.mark.parametrize("path", PLACES)
def test_folder_that_became_a_link_is_not_entered(path: str, tmp_path: Path, tree_fd: int) -> None:
    """The folder of a file is swapped for a link to a host folder with the same name in it."""
    where = place(tmp_path, path)
    where.write_bytes(host_file(tmp_path).read_bytes())
    found = find(TreeView(tree_fd), CONTEXT, ALL)
    victim = host_file(tmp_path, where.name)
    where.parent.rename(tmp_path / "moved")
    where.parent.symlink_to(tmp_path / "host")
    before = state(victim)
    mend(tree_fd, found)
    scan(TreeView(tree_fd), CONTEXT)
    assert state(victim) == before


@pytest.mark.parametrize("path", PLACES)
def test_hard_link_to_a_host_file_is_broken_first(path: str, tmp_path: Path, tree_fd: int) -> None:
    """The tree's name gets a file of its own, or goes; the inode stays as it was."""
    victim = host_file(tmp_path)
    before = state(victim)
    os.link(victim, place(tmp_path, path))
    found = scrubbed(tree_fd)
    assert (state(victim), victim.stat().st_nlink) == (before, 1)
    assert any(one.path == f"/{path}" for one in found)


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "loop"])
def test_what_is_no_file_does_not_stop_us(
    kind: str, path: str, tmp_path: Path, tree_fd: int
) -> None:
    """Fifos are not waited for, devices not opened, folders not taken for files."""
    where = place(tmp_path, path)
    match kind:
        case "fifo":
            os.mkfifo(where)
        case "socket":
            os.mknod(where, stat.S_IFSOCK | 0o600)
        case "device":  # major 240 is for local use: opening it fails with ENXIO
            os.mknod(where, stat.S_IFCHR | 0o600, os.makedev(240, 0))
        case "folder":
            (where / "sub").mkdir(parents=True)
            (where / "sub/file").write_text("domain2.com")
        case _:
            where.symlink_to(where.name)
    within(PATIENCE, lambda: scrubbed(tree_fd))


def within(seconds: float, work: Callable[[], object]) -> None:
    """Fail where work does not end; a hang must not hang the suite."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


def test_file_that_became_a_fifo_is_not_waited_for(tmp_path: Path, tree_fd: int) -> None:
    """Found as a file, a fifo when it is mended."""
    where = place(tmp_path, "etc/shadow")
    where.write_bytes(host_file(tmp_path).read_bytes())
    found = find(TreeView(tree_fd), CONTEXT, ALL)
    where.unlink()
    os.mkfifo(where)
    within(PATIENCE, lambda: mend(tree_fd, found))
    assert stat.S_ISFIFO(where.lstat().st_mode)


def test_what_vanished_is_fine(tmp_path: Path, tree_fd: int) -> None:
    """The tree's owner may tidy up before we do."""
    for path in PLACES:
        place(tmp_path, path).write_bytes(host_file(tmp_path).read_bytes())
    found = find(TreeView(tree_fd), CONTEXT, ALL)
    for path in PLACES:
        (tmp_path / "tree" / path).unlink()
    mend(tree_fd, found)
    assert scan(TreeView(tree_fd), CONTEXT) == ()


def test_path_with_dots_can_not_climb_out(tmp_path: Path, tree_fd: int) -> None:
    """Even a finding that was made up stays inside the tree."""
    victim = host_file(tmp_path)
    before = state(victim)
    for path in ("/../host/secret", "/etc/../../host/secret", "//../host/secret"):
        for deed in (Deed.REMOVE, Deed.EMPTY):
            mend(tree_fd, [Finding("x", path, None, deed, "x")])
    assert state(victim) == before


def deep(tree_fd: int, folder: str, levels: int) -> None:
    """A folder nested too deep for any path, with a key at its bottom."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=tree_fd)
    for _ in range(levels):
        os.mkdir("dddd", dir_fd=fd)
        below = os.open("dddd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    bottom = os.open("a.key", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)
    os.write(bottom, SECRET.encode())
    os.close(bottom)
    os.close(fd)


def test_no_depth_hides_a_key_or_stops_us(tmp_path: Path, tree_fd: int) -> None:
    """Below 2000 folders, beyond recursion and PATH_MAX: found, reported, removed; so is a whole folder as deep."""
    for folder in ("srv", "tmp"):
        place(tmp_path, f"{folder}/x").parent.mkdir(exist_ok=True)
        deep(tree_fd, folder, 2000)
    try:
        reported = scan(TreeView(tree_fd), CONTEXT)
        scrubbed(tree_fd)
        assert len(reported) == 2
        assert [one.path for one in scan(TreeView(tree_fd), CONTEXT)] == []
        assert list((tmp_path / "tree/tmp").iterdir()) == []
    finally:  # rmtree can't: it recurses
        delete(tree_fd, "srv")
        delete(tree_fd, "tmp")


def test_names_of_any_bytes_are_mended(tmp_path: Path, tree_fd: int) -> None:
    """Names that are no UTF-8, have newlines or look like options."""
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"*", b" ", b"\x1b[2J"):
        place(tmp_path, "tmp/" + os.fsdecode(name)).write_text("x")
    scrubbed(tree_fd)
    assert list((tmp_path / "tree/tmp").iterdir()) == []


def test_immutable_file_is_said_and_the_rest_is_mended(tmp_path: Path, tree_fd: int) -> None:
    """One file that can't be mended keeps no other from it, and the message names it."""
    for path in ("etc/ssl/private/a.key", "root/.netrc"):
        place(tmp_path, path).write_text("x")
    guarded = tmp_path / "tree/etc/ssl/private/a.key"
    if subprocess.run(["chattr", "+i", guarded], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(ApplyError, match=r"a\.key: Operation not permitted"):
            mend(tree_fd, find(TreeView(tree_fd), CONTEXT, ALL))
    finally:
        subprocess.run(["chattr", "-i", guarded], check=True)
    assert not (tmp_path / "tree/root/.netrc").exists()


MOUNTED = """
import os, sys
from virttools.errors import Busy
from virttools.tree.delete import delete
from virttools.scrub.findings import Context
from virttools.scrub.search import find, mend, select
from virttools.scrub.secrets import scan
from virttools.scrub.view import TreeView
context = Context(domain="domain1.com", other_names=("domain2.com",))
tree_fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
found = find(TreeView(tree_fd), context, select(("all",)))
print(*(one.path for one in found), sep="\\n")
try:
    mend(tree_fd, found)
except Busy as error:
    print(error.message)
print(len(scan(TreeView(tree_fd), context)))
"""


def test_mounts_are_not_entered(tmp_path: Path) -> None:
    """A host folder bound below a tree is neither looked into nor emptied; what is beside it goes."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "domain2.com").write_text(SECRET)
    for path in ("tmp/a/mnt", "srv/mnt"):
        (tmp_path / "tree" / path).mkdir(parents=True)
    (tmp_path / "tree/tmp/b").write_text("x")
    script = (
        f'mount --bind "{host}" "{tmp_path}/tree/tmp/a/mnt" && '
        f'mount --bind "{host}" "{tmp_path}/tree/srv/mnt" && exec "$0" -c "$1" "{tmp_path}/tree"'
    )
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, sys.executable, MOUNTED],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["/tmp/a", "/tmp/b"]
    assert lines[2].endswith("something is mounted there")
    assert lines[3] == "0"
    assert (host / "domain2.com").read_text() == SECRET
    assert not (tmp_path / "tree/tmp/b").exists()


SWAP = """
import os, random, sys, time
from contextlib import suppress
from pathlib import Path
etc, host = Path(sys.argv[1]), Path(sys.argv[2])
shadow, aside = etc / "shadow", etc.with_name("aside")
content = (host / "shadow").read_bytes()
steps = (
    lambda: shadow.write_bytes(content),
    shadow.unlink,
    lambda: os.link(host / "shadow", shadow),
    shadow.unlink,
    lambda: shadow.symlink_to(host / "shadow"),
    lambda: etc.rename(aside),
    lambda: etc.symlink_to(host),
    etc.unlink,
    lambda: aside.rename(etc),
    shadow.unlink,
)
print("ready", flush=True)
while True:
    for step in steps:
        with suppress(OSError):
            step()
        time.sleep(random.random() / 1000)
"""


def test_tree_that_changes_all_the_time_is_no_way_out(tmp_path: Path, tree_fd: int) -> None:
    """While a tenant swaps a file, a folder and links for one another, the host's file stays as it is."""
    victim = host_file(tmp_path, "shadow")
    victim.chmod(0o400)
    before = state(victim)
    etc = place(tmp_path, "etc/shadow").parent
    tenant = subprocess.Popen(
        [sys.executable, "-c", SWAP, etc, tmp_path / "host"], stdout=subprocess.PIPE
    )
    assert tenant.stdout is not None
    tenant.stdout.readline()
    mended = 0

    def trial() -> int:
        nonlocal mended
        with suppress(ApplyError, Busy):
            mended += len(scrubbed(tree_fd))
        return mended

    try:
        for _ in range(3000):
            trial()
        until(trial, "anything to mend was met")
    finally:
        tenant.kill()
        tenant.communicate()
    assert state(victim) == before


def test_dev_log_and_sockets_of_services_stay(tmp_path: Path, tree_fd: int) -> None:
    """No operation takes the syslog socket of a tree."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    where = place(tmp_path, "dev/log")
    here = Path.cwd()
    os.chdir(where.parent)
    try:
        log.bind("log")
    finally:
        os.chdir(here)
    scrubbed(tree_fd)
    log.close()
    assert stat.S_ISSOCK(where.lstat().st_mode)


def test_every_operation_is_in_these_trials() -> None:
    """`all` means all."""
    assert {operation.name for operation in OPERATIONS} == set(ALL)
