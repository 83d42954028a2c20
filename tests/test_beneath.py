"""What lies below a hostile tree can't lead out of it, stop us, or exhaust us."""

import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import ground
from virttools.tree import beneath
from virttools.tree.delete import delete


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A tree beside a secret, and a descriptor of it."""
    ground.leave_mounts()
    (tmp_path / "secret").write_text("host")
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    (top / "etc/passwd").write_text("inside")
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    yield top, fd
    os.close(fd)


def test_a_read_resolves_links_as_from_inside(tree: tuple[Path, int]) -> None:
    """An absolute link and one with too many ".." mean a path of the tree, not of the host."""
    top, fd = tree
    (top / "absolute").symlink_to("/etc/passwd")
    (top / "upward").symlink_to("../../../../etc/passwd")
    (top / "outward").symlink_to("../secret")
    assert beneath.read_file(fd, "/absolute", 100) == b"inside"
    assert beneath.read_file(fd, "upward", 100) == b"inside"
    with pytest.raises(FileNotFoundError):
        beneath.read_file(fd, "outward", 100)


@pytest.mark.parametrize("path", ["etc/passwd", "link/passwd", "../secret", "/etc/passwd"])
def test_a_write_follows_no_link_and_leaves_by_no_dots(tree: tuple[Path, int], path: str) -> None:
    """Only a canonical relative path is opened for writing."""
    top, fd = tree
    (top / "link").symlink_to("etc")
    if path == "etc/passwd":
        os.close(beneath.open_beneath(fd, path, os.O_WRONLY))
    else:
        with pytest.raises(OSError, match=r"link|cross"):
            beneath.open_beneath(fd, path, os.O_WRONLY)


def test_a_read_takes_regular_files_of_bounded_size_only(tree: tuple[Path, int]) -> None:
    """A fifo does not hold us up, a folder or socket is no file, a huge file is not swallowed."""
    top, fd = tree
    os.mkfifo(top / "fifo")
    with open(top / "huge", "wb") as file:
        file.truncate(1 << 40)
    for name in ("fifo", "etc", "huge"):
        with pytest.raises(OSError, match=r"not a regular file|larger than 64 bytes"):
            beneath.read_file(fd, name, 64)
    assert beneath.read_file(fd, "etc/passwd", len("inside")) == b"inside"


def test_a_device_is_never_opened(tree: tuple[Path, int], as_root: None) -> None:
    """A planted device node is looked at, not opened: opening one acts."""
    top, fd = tree
    # There is no driver behind this number: an open would fail with ENXIO, not with our words.
    os.mknod(top / "tape", stat.S_IFCHR | 0o666, os.makedev(4000, 1))
    with pytest.raises(OSError, match="not a regular file"):
        beneath.read_file(fd, "tape", 64)


def test_replacing_a_name_spares_what_it_led_to(tree: tuple[Path, int]) -> None:
    """A link, a hard link to a host file and a fifo at the name are replaced, and nothing behind them changes."""
    top, fd = tree
    secret = top.parent / "secret"
    (top / "symlink").symlink_to(secret)
    os.link(secret, top / "hardlink")
    os.mkfifo(top / "fifo")
    for name in ("symlink", "hardlink", "fifo", "new"):
        beneath.replace_file(fd, name, b"ours", 0o640, os.geteuid(), os.getegid())
        found = (top / name).lstat()
        assert (stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode), found.st_nlink) == (
            stat.S_IFREG,
            0o640,
            1,
        )
        assert (top / name).read_bytes() == b"ours"
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode) & 0o600) == ("host", 0o600)
    assert sorted(os.listdir(top)) == ["etc", "fifo", "hardlink", "new", "symlink"]


def test_replacing_goes_through_no_linked_folder(tree: tuple[Path, int]) -> None:
    """A folder on the way that is a link, in or out, is refused for writes and unlinks."""
    top, fd = tree
    (top / "out").symlink_to(top.parent)
    with pytest.raises(OSError, match="symbolic links"):
        beneath.replace_file(fd, "out/secret", b"x", 0o644, os.geteuid(), os.getegid())
    with pytest.raises(OSError, match="symbolic links"):
        beneath.unlink(fd, "out/secret")
    assert (top.parent / "secret").read_text() == "host"


def test_a_failed_replacement_leaves_nothing_behind(tree: tuple[Path, int]) -> None:
    """Where the name is a folder, neither it nor a temporary file is left changed."""
    top, fd = tree
    with pytest.raises(OSError, match="directory"):
        beneath.replace_file(fd, "etc", b"x", 0o644, os.geteuid(), os.getegid())
    assert describe_names(top) == ["etc", "etc/passwd"]


def describe_names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_a_walk_tells_every_name_and_follows_none(tree: tuple[Path, int]) -> None:
    """Folders come before their contents; a link to a folder is told as a link."""
    top, fd = tree
    (top / "loop").symlink_to(".")
    (top / "out").symlink_to("..")
    os.mkfifo(top / "fifo")
    assert [path for path, _ in beneath.walk(fd)] == ["etc", "etc/passwd", "fifo", "loop", "out"]


def test_a_walk_crosses_no_mount(tree: tuple[Path, int], as_root: None) -> None:
    """A folder on which something is mounted is told and not entered, a bind of the host's / neither."""
    top, fd = tree
    with ground.mounted(top / "tmpfs", "-t", "tmpfs", "none"):
        (top / "tmpfs/inner").write_text("")
        with ground.mounted(top / "bound", "--bind", str(top.parent)):
            assert [path for path, _ in beneath.walk(fd)] == [
                "bound",
                "etc",
                "etc/passwd",
                "tmpfs",
            ]


def make_deep(top: Path, depth: int) -> None:
    """A chain of folders whose path is far longer than PATH_MAX, with a file in each."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 255, dir_fd=fd)
        below = os.open("d" * 255, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        os.close(os.open("f" * 255, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=below))
        fd = below
    os.close(fd)


def test_depth_exhausts_neither_descriptors_nor_the_stack(tree: tuple[Path, int]) -> None:
    """3000 levels of names of 255 bytes are walked and deleted with a handful of descriptors."""
    top, fd = tree
    (top / "deep").mkdir()
    make_deep(top / "deep", 3000)
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    count = 0
    for _ in beneath.walk(fd):
        count += 1
        if count % 500 == 0:
            most = max(most, len(os.listdir("/proc/self/fd")))
    assert (count, most <= before + 3) == (6003, True)
    with pytest.raises(OSError, match="File name too long"):
        sum(1 for _ in beneath.walk(fd, most=1 << 20))
    delete(fd, "deep")
    assert sorted(os.listdir(top)) == ["etc"]


def test_deleting_follows_no_link(tree: tuple[Path, int]) -> None:
    """Links, fifos and hard links go; what they lead to stays."""
    top, fd = tree
    bad = top / "bad"
    bad.mkdir()
    (bad / "out").symlink_to(top.parent)
    (bad / "secret").symlink_to(top.parent / "secret")
    os.link(top.parent / "secret", bad / "hard")
    os.mkfifo(bad / "fifo")
    (bad / "barred").mkdir(mode=0)
    delete(fd, "bad")
    assert describe_names(top) == ["etc", "etc/passwd"]
    assert (top.parent / "secret").read_text() == "host"


def test_what_is_gone_already_is_deleted(tree: tuple[Path, int]) -> None:
    """Deleting nothing is no error."""
    _, fd = tree
    delete(fd, "absent")


def test_swapping_folders_for_links_while_deleting_harms_nothing(tree: tuple[Path, int]) -> None:
    """A tenant who races the deletion with a link to the host's folder loses only what is his."""
    top, fd = tree
    victim = top.parent / "victim"
    victim.mkdir()
    (victim / "kept").write_text("host")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name in ("a", "b"):
                try:
                    os.rename(top / "bad" / name, top / "bad/x")
                    os.symlink(victim, top / "bad" / name)
                    os.unlink(top / "bad" / name)
                    os.rename(top / "bad/x", top / "bad" / name)
                except OSError:
                    pass

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(200):
            subprocess.run(["mkdir", "-p", top / "bad/a/1/2", top / "bad/b/1/2"], check=False)
            try:
                delete(fd, "bad")
            except Exception:  # noqa: BLE001  whatever it meets: the host's folder is the promise
                continue
    finally:
        stop.set()
        thread.join()
    assert (victim / "kept").read_text() == "host"
