"""One copy of each file, known by content and attributes, and nothing read twice."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import ground
from virttools.errors import ApplyError
from virttools.tree import store
from virttools.tree.actions import CopyFile
from virttools.tree.content import Copier, Dress
from virttools.tree.root import Root, open_root
from virttools.tree.store import Store

OLD = Path("/etc/passwd")
"""A file that nobody has just written: its digest is worth remembering."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    tmp_path.chmod(0o755)
    with open_root(str(tmp_path / "root"), make=True) as opened:
        yield opened


def dress(action: CopyFile, mode: int = 0o644) -> Dress:
    return Dress(mode, os.geteuid(), os.getegid(), (), action.mtime_ns)


def objects(root: Root) -> list[Path]:
    return sorted(Path(root.path, ".virt/store").glob("??/*"))


def test_equal_content_and_attributes_are_one_object(root: Root, tmp_path: Path) -> None:
    """Two host files that differ in nothing but their place share one inode."""
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
        os.utime(tmp_path / name, ns=(1, 1))
    shop = Store(root, Copier())
    for name in ("one", "two"):
        action = ground.copy(name, tmp_path / name)
        shop.take_in(action, dress(action))
    (found,) = objects(root)
    assert found.name.startswith(hashlib.sha256(b"same").hexdigest())
    assert (found.read_text(), found.stat().st_mtime_ns) == ("same", 1)


def test_another_mode_or_time_is_another_object(root: Root, tmp_path: Path) -> None:
    """An inode has one set of attributes, so each set has an inode."""
    source = tmp_path / "file"
    source.write_text("same")
    shop = Store(root, Copier())
    for time, mode in ((1, 0o644), (1, 0o755), (2, 0o644)):
        os.utime(source, ns=(time, time))
        action = ground.copy("file", source)
        shop.take_in(action, dress(action, mode))
    assert sorted(
        (stat.S_IMODE(o.stat().st_mode), o.stat().st_mtime_ns) for o in objects(root)
    ) == [
        (0o644, 1),
        (0o644, 2),
        (0o755, 1),
    ]


def test_a_warm_store_reads_no_source(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known by identity is neither opened nor hashed, in this process or the next."""
    action = ground.copy("etc/passwd", OLD, share=True, md5="0" * 32)
    first = Store(root, Copier())
    made = first.take_in(action, dress(action))
    first.save()
    monkeypatch.setattr(Copier, "copy", None)
    again = Store(root, Copier()).find(action, dress(action))
    assert again is not None
    assert (again.name, again.digest) == (made.name, made.digest)


def test_pristine_is_what_the_package_ships(root: Root) -> None:
    """md5 is computed where a package has one, and only then."""
    right = hashlib.md5(OLD.read_bytes()).hexdigest()
    for md5, expected in ((right, True), ("0" * 32, False), (None, False)):
        action = ground.copy("etc/passwd", OLD, md5=md5)
        digest = Store(root, Copier()).take_in(action, dress(action)).digest
        assert (digest.is_pristine(action), digest.md5 is None) == (expected, md5 is None)


@pytest.mark.parametrize("tampering", ["grown", "mode", "time", "fifo", "link"])
def test_an_object_that_is_not_what_its_name_says_is_made_anew(
    root: Root, tampering: str, tmp_path: Path
) -> None:
    """Root inside a plain chroot can write a shared inode; what shows it is not handed on."""
    action = ground.copy("etc/passwd", OLD, share=True)
    shop = Store(root, Copier())
    shop.take_in(action, dress(action))
    shop.save()
    (found,) = objects(root)
    if tampering == "grown":
        found.write_bytes(OLD.read_bytes() + b"evil")
        os.utime(found, ns=(action.mtime_ns, action.mtime_ns))
    elif tampering == "mode":
        found.chmod(0o666)
    elif tampering == "time":
        os.utime(found, ns=(5, 5))
    else:
        found.unlink()
        if tampering == "link":
            found.symlink_to("/etc/shadow")
        else:
            os.mkfifo(found)
    again = Store(root, Copier())
    assert again.find(action, dress(action)) is None
    again.take_in(action, dress(action))
    (mended,) = objects(root)
    at = mended.lstat()
    assert mended.read_bytes() == OLD.read_bytes()
    assert (at.st_mtime_ns, stat.S_IMODE(at.st_mode)) == (action.mtime_ns, 0o644)


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 5000])
def test_a_damaged_index_counts_as_none(root: Root, damage: bytes) -> None:
    """Nothing is believed that is not whole; the next save writes it anew."""
    action = ground.copy("etc/passwd", OLD)
    shop = Store(root, Copier())
    shop.take_in(action, dress(action))
    shop.save()
    index = Path(root.path, ".virt/store/index")
    index.write_bytes(damage or index.read_bytes()[:-1])
    assert Store(root, Copier()).known(action) is None
    again = Store(root, Copier())
    again.take_in(action, dress(action))
    again.save()
    assert Store(root, Copier()).known(action) is not None


def test_two_builders_learn_from_each_other(root: Root) -> None:
    """Saving keeps what somebody else saved since we loaded."""
    one, two = ground.copy("a", OLD), ground.copy("b", Path("/etc/group"))
    first, second = Store(root, Copier()), Store(root, Copier())
    first.take_in(one, dress(one))
    second.take_in(two, dress(two))
    first.save()
    second.save()
    third = Store(root, Copier())
    assert (third.known(one) is not None, third.known(two) is not None) == (True, True)


def test_a_file_just_written_is_not_remembered(root: Root, tmp_path: Path) -> None:
    """Within a tick of its clock it may change again and look the same."""
    source = tmp_path / "fresh"
    source.write_text("now")
    action = ground.copy("fresh", source)
    shop = Store(root, Copier())
    shop.take_in(action, dress(action))
    shop.save()
    assert Store(root, Copier()).known(action) is None


def test_a_source_that_changed_since_the_survey_is_refused(root: Root, tmp_path: Path) -> None:
    """The plan's facts are stale: nothing of it stays in the store."""
    source = tmp_path / "file"
    source.write_text("surveyed")
    action = ground.copy("file", source)
    source.write_text("replaced")
    with pytest.raises(ApplyError, match="changed while being copied"):
        Store(root, Copier()).take_in(action, dress(action))
    assert os.listdir(root.store_fd) == []


def test_an_inode_full_of_links_is_followed_by_another(
    root: Root, tmp_path: Path, as_root: None
) -> None:
    """ext4 stops at 65000 names; the tree gets the same file from a second object."""
    ground.leave_mounts()
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with (
        ground.mounted(tmp_path / "ext4", "-o", "loop", str(image)),
        open_root(str(tmp_path / "ext4/root"), make=True) as here,
    ):
        action = ground.copy("file", OLD, share=True)
        shop = Store(here, Copier())
        wanted = shop.take_in(action, dress(action))
        many = tmp_path / "ext4/many"
        many.mkdir()
        fd = os.open(many, os.O_RDONLY)
        for number in range(64_999):
            shop.link(wanted, b"%d" % number, fd)
        for name in (b"more", b"most"):
            shop.link(wanted, name, fd)
        os.close(fd)
        first, more, most = ((many / name).stat() for name in ("0", "more", "most"))
        assert (first.st_nlink, more.st_nlink, more.st_ino == most.st_ino) == (65_000, 3, True)
        assert (many / "more").read_bytes() == OLD.read_bytes()
        assert (more.st_mtime_ns, more.st_mode) == (first.st_mtime_ns, first.st_mode)


def test_what_no_tree_links_to_is_thrown_out(root: Root, tmp_path: Path) -> None:
    """Objects in use stay, unused ones and a crash's leavings go, and not while somebody builds."""
    one, two = ground.copy("a", OLD), ground.copy("b", Path("/etc/group"))
    shop = Store(root, Copier())
    used = shop.take_in(one, dress(one))
    shop.take_in(two, dress(two))
    fd = os.open(tmp_path, os.O_RDONLY)
    shop.link(used, b"in-a-tree", fd)
    os.close(fd)
    (Path(root.path) / ".virt/store/.new.crashed").write_text("half")
    with open_root(root.path) as other, other.lock_store(shared=True):
        assert store.collect(root) == 0
    assert store.collect(root) == 2
    assert [str(path).endswith(os.fsdecode(used.name)) for path in objects(root)] == [True]
