"""Removing takes a domain and nothing else, and not while anybody uses it."""

import io
import os
import re
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system import ground
from tests.system.ground import copy, folder, plan, text
from virttools import linux
from virttools.errors import ApplyError, Busy, UnknownDomain
from virttools.tree import remove as removing
from virttools.tree import staging
from virttools.tree.delete import delete
from virttools.tree.kept import heads, keep
from virttools.tree.locks import acquire
from virttools.tree.remove import remove, users_of
from virttools.tree.root import _EVERYTHING, Root, open_root

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A root with the domain d.com, in mounts of this process's own."""
    ground.leave_mounts()
    tmp_path.chmod(0o755)
    with open_root(str(tmp_path / "root"), make=True) as opened:
        shared = copy("file", Path("/etc/services"), share=True)
        ground.create(opened, plan("d.com", folder("etc"), folder("mnt"), text("etc/motd"), shared))
        yield opened


def remains(root: Root) -> list[str]:
    """Every path of the root, less its empty folders and the lock files that stay."""
    here = Path(root.path)
    return sorted(
        str(path.relative_to(here))
        for path in here.rglob("*")
        if not path.is_dir() and ".virt/locks/." not in str(path) and path.name != "index"
    )


def test_nothing_is_left_of_a_removed_domain(root: Root) -> None:
    """Tree, record, lock and what only it had of the store are gone; another domain keeps all."""
    ground.create(root, plan("e.com", copy("file", Path("/etc/passwd"), share=True)))
    remove(root, "d.com")
    (stored,) = (name for name in remains(root) if "/store/" in name)
    assert remains(root) == sorted(
        [".virt/records/e.com.json", stored, "e.com/file", ".virt/locks/e.com"]
    )
    remove(root, "e.com")
    assert (remains(root), root.domains()) == ([], ())


def test_a_tree_that_is_kept_is_no_domain_and_none_is_in_its_way(root: Root) -> None:
    """All of it lies in .virt/kept, for root alone; the next of the name lies beside it."""
    tree = Path(root.path) / "d.com"
    (tree / "etc/motd").write_text("of before")
    (tree / "mnt/link").symlink_to("/etc")
    before = describe(tree)
    kept = Path(keep(root, "d.com"))
    assert (kept, describe(kept)) == (Path(root.path) / ".virt/kept/d.com", before)
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert (root.domains(), root.recorded(), root.look("d.com")) == ((), (), None)
    ground.create(root, plan("d.com", folder("etc"), text("etc/motd")))
    assert keep(root, "d.com") == f"{kept}.2"
    assert describe(kept) == before
    assert {path: one.domain for path, one in heads(root).items()} == {
        str(kept): "d.com",
        f"{kept}.2": "d.com",
    }


def test_the_record_of_a_kept_tree_is_there_as_long_as_the_tree(root: Root) -> None:
    """Nor is it looked for through a link, or waited for in a fifo, where somebody has put one."""
    kept = Path(keep(root, "d.com"))
    record = kept.with_name(".d.com.json")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    record.rename(kept / "away")
    assert heads(root) == {}
    record.symlink_to(kept / "away")
    with pytest.raises(ApplyError, match="Too many levels"):
        heads(root)
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(ApplyError, match="no plain file"):
        heads(root)
    shutil.rmtree(kept)
    ground.create(root, plan("e.com", folder("etc")))
    keep(root, "e.com")
    assert sorted(path.name for path in kept.parent.iterdir()) == [".e.com.json", "e.com"]


def test_who_looks_at_all_domains_bears_that_one_goes(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when they were listed, and its record is not when it is read."""
    monkeypatch.setattr(Root, "domains", lambda _: ("d.com", "gone.com"))
    assert [one.domain for one in root.heads()] == ["d.com"]


def test_two_that_are_kept_at_once_lose_no_record(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes between the record and its tree takes it for one whose tree was deleted: it has to wait."""
    ground.create(root, plan("e.com", folder("etc")))
    rename = linux.renameat2

    def rename_late(src_fd: int, src: str, dst_fd: int, dst: str, flags: int) -> None:
        monkeypatch.undo()
        with open_root(root.path) as again, suppress(BlockingIOError):
            os.close(acquire(again._locks._dir_fd, _EVERYTHING, shared=False, wait=False))
            keep(again, "e.com")
        rename(src_fd, src, dst_fd, dst, flags)

    monkeypatch.setattr(linux, "renameat2", rename_late)
    keep(root, "d.com")
    assert "d.com" in [one.domain for one in heads(root).values()]


def test_what_the_manual_packs_of_a_kept_tree_is_never_the_hosts(root: Root) -> None:
    """Its owner has put a link to a folder of the host in the place of var."""
    outside = Path(root.path).parent / "outside"
    (outside / "mail").mkdir(parents=True)
    (outside / "mail/root").write_text("of the host")
    tree = Path(root.path) / "d.com"
    (tree / "home").mkdir()
    (tree / "home/letter").write_text("of the domain")
    (tree / "srv").mkdir()
    (tree / "var").symlink_to(outside)
    kept = keep(root, "d.com")
    manual = (Path(__file__).parents[2] / "docs/virt.1").read_text().replace("\\-", "-")
    (words,) = re.findall(
        r"^# (tar -C /virtual/.virt/kept/domain1.com .*) \|$", manual, re.MULTILINE
    )
    command = words.replace("/virtual/.virt/kept/domain1.com", kept).split()
    packed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        found = {one.name: one.issym() for one in archive}
    assert found == {"home": False, "home/letter": False, "srv": False, "var": True}


def describe(tree: Path) -> list[tuple[str, int, int, int]]:
    found = [(path, path.lstat()) for path in sorted(tree.rglob("*"))]
    return [
        (str(path.relative_to(tree)), seen.st_mode, seen.st_size, seen.st_ino)
        for path, seen in found
    ]


def test_a_tree_in_use_is_not_set_aside(root: Root) -> None:
    """It stays a domain, and so it does where something else is in the place of the folder for it."""
    with (
        ground.mounted(Path(root.path) / "d.com/mnt", "-t", "tmpfs", "none"),
        pytest.raises(Busy),
    ):
        keep(root, "d.com")
    (Path(root.path) / ".virt/kept").rmdir()
    (Path(root.path) / ".virt/kept").symlink_to("/tmp")
    with pytest.raises(ApplyError):
        keep(root, "d.com")
    assert root.has("d.com")


@pytest.mark.parametrize("name", ["absent.com", "../root", ".virt", "", "etc/passwd"])
def test_only_a_domain_is_removed(root: Root, name: str) -> None:
    before = remains(root)
    with pytest.raises(UnknownDomain):
        remove(root, name)
    assert remains(root) == before


def test_a_folder_that_is_no_domain_stays(root: Root) -> None:
    """What has no record was not made by us."""
    Path(root.path, "mine").mkdir()
    Path(root.path, "mine/file").write_text("")
    with pytest.raises(UnknownDomain):
        remove(root, "mine")
    assert Path(root.path, "mine/file").exists()


def test_a_hostile_tree_harms_nothing_outside(root: Root, tmp_path: Path) -> None:
    """Planted links, hard links, fifos, devices and depth all go; what they lead to stays as it was."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("host")
    (victim / "file").chmod(0o640)
    tree = Path(root.path, "d.com")
    (tree / "etc/motd").unlink()
    (tree / "etc/motd").symlink_to(victim / "file")
    (tree / "out").symlink_to(victim)
    os.link(victim / "file", tree / "hard")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "disk", 0o60666, os.makedev(7, 0))
    deep = "/".join(["d" * 250] * 14)
    (tree / deep).mkdir(parents=True)
    remove(root, "d.com")
    found = (victim / "file").stat()
    assert ((victim / "file").read_text(), found.st_mode & 0o7777, found.st_nlink) == (
        "host",
        0o640,
        1,
    )
    assert remains(root) == []


@pytest.mark.parametrize("where", ["mnt", "etc/motd", "."])
def test_it_refuses_while_something_is_mounted_below(
    root: Root, where: str, tmp_path: Path
) -> None:
    """A bind mount of a host's folder or file at, or on, the tree: status 75, the mount point named."""
    point = Path(root.path, "d.com", where)
    host = tmp_path / "host"
    if point.is_dir():
        host.mkdir()
        (host / "kept").write_text("host")
    else:
        host.write_text("host")
    before = remains(root)
    if where == ".":
        # The descriptor must be of the tree below the mount, as an administrator's mistake has it.
        subprocess.run(["mount", "--bind", host, point], check=True)
        try:
            with pytest.raises((Busy, ApplyError)):
                remove(root, "d.com")
        finally:
            subprocess.run(["umount", point], check=True)
    else:
        subprocess.run(["mount", "--bind", host, point], check=True)
        try:
            with pytest.raises(Busy, match=f"used by a mount at {point}"):
                remove(root, "d.com")
        finally:
            subprocess.run(["umount", point], check=True)
    assert (remains(root), root.has("d.com"), ground.leftovers(root)) == (before, True, [])


def test_mounts_are_seen_by_other_paths_and_in_other_namespaces(root: Root, tmp_path: Path) -> None:
    """A bind mount of the root elsewhere, and a mount in another process's namespace, are both found."""
    alias = tmp_path / "alias"
    with (
        ground.mounted(alias, "--bind", root.path),
        ground.mounted(alias / "d.com/mnt", "-t", "tmpfs", "none"),
    ):
        assert users_of(root, "d.com") == (f"a mount at {alias}/d.com/mnt",)
    assert users_of(root, "d.com") == ()
    other = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {root.path}/d.com/mnt; echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    assert other.stdout is not None
    other.stdout.readline()
    assert users_of(root, "d.com") == (f"a mount at {root.path}/d.com/mnt",)
    other.communicate()
    assert users_of(root, "d.com") == ()


def test_a_tree_that_is_mounted_elsewhere_is_in_use(root: Root, tmp_path: Path) -> None:
    """Deleting it would empty that place."""
    with (
        ground.mounted(tmp_path / "www", "--bind", f"{root.path}/d.com/etc"),
        pytest.raises(Busy, match=f"used by a mount of it at {tmp_path}/www"),
    ):
        remove(root, "d.com")
    remove(root, "d.com")


@pytest.mark.parametrize("way", ["root", "root below", "working directory", "bind"])
def test_it_refuses_while_a_process_runs_inside(root: Root, way: str, tmp_path: Path) -> None:
    """Decided by device and inode: by chroot, deeper chroot, working directory, or through a bind mount."""
    tree = f"{root.path}/d.com"
    pid = os.fork()
    if pid == 0:
        try:
            if way == "bind":
                ground.leave_mounts()
                (tmp_path / "b").mkdir()
                subprocess.run(["mount", "--bind", tree, tmp_path / "b"], check=True)
                os.chroot(tmp_path / "b")
                os.chdir("/")
            elif way == "working directory":
                os.chdir(f"{tree}/etc")
            else:
                os.chroot(tree if way == "root" else f"{tree}/etc")
                os.chdir("/")
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    try:
        with pytest.raises(Busy, match=rf"cannot remove d.com: it is used by process {pid} \("):
            remove(root, "d.com")
        assert (root.has("d.com"), ground.leftovers(root)) == (True, [])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    remove(root, "d.com")
    assert remains(root) == []


def test_a_neighbour_with_a_longer_name_is_not_meant(root: Root) -> None:
    """/virtual/d.com.org is not below /virtual/d.com, whatever their paths begin with."""
    ground.create(root, plan("d.com.org", folder("mnt")))
    with ground.mounted(Path(root.path, "d.com.org/mnt"), "-t", "tmpfs", "none"):
        assert users_of(root, "d.com") == ()
        remove(root, "d.com")


def test_somebody_who_comes_at_the_last_moment_keeps_the_domain(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever enters between the look and the rename is seen after it, and everything is put back."""
    before = remains(root)
    answers = [(), ("process 1 (late)",)]
    monkeypatch.setattr(removing, "users_in", lambda _: answers.pop(0))
    with pytest.raises(Busy, match="late"):
        remove(root, "d.com")
    assert (remains(root), root.has("d.com"), ground.leftovers(root)) == (before, True, [])


def test_a_mount_that_appears_meanwhile_stops_the_deletion(
    root: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is mounted is not touched; the domain is gone, its remains wait for a sweep."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/kept").write_text("host")
    points: list[Path] = []

    def mount_then_delete(dir_fd: int, name: str) -> None:
        points.append(Path(root.path, ".virt/staging", name, "mnt"))
        subprocess.run(["mount", "--bind", tmp_path / "host", points[0]], check=True)
        delete(dir_fd, name)

    monkeypatch.setattr(removing, "delete", mount_then_delete)
    with pytest.raises(Busy, match=r"mnt: something is mounted there"):
        remove(root, "d.com")
    staging.sweep(root)
    assert (tmp_path / "host/kept").read_text() == "host"
    assert (root.domains(), len(ground.leftovers(root)) > 0) == ((), True)
    subprocess.run(["umount", points[0]], check=True)
    staging.sweep(root)
    assert (remains(root), ground.leftovers(root)) == ([], [])


def test_a_kill_between_rename_and_deletion_is_swept(root: Root) -> None:
    """The tree lies in the trash, its record is still there: no domain, and the next sweep clears both."""
    batch = staging.Batch(root)
    trash = batch.folder("trash.d.com")
    linux.renameat2(root.fd, "d.com", root.staging_fd, trash, linux.RENAME_NOREPLACE)
    os.close(batch._lock_fd)
    assert root.domains() == ()
    staging.sweep(root)
    assert [name for name in remains(root) if "/store/" not in name] == []


def test_an_immutable_file_is_said(root: Root) -> None:
    """An immutable file stops the deletion with the file's name; once it is lifted the sweep ends it."""
    target = f"{root.path}/d.com/etc/motd"
    subprocess.run(["chattr", "+i", target], check=True)
    with pytest.raises(
        ApplyError, match=r"\.virt/staging/trash.*/etc/motd: Operation not permitted"
    ):
        remove(root, "d.com")
    (trash,) = (name for name in ground.leftovers(root) if name.startswith("trash"))
    subprocess.run(["chattr", "-i", f"{root.path}/.virt/staging/{trash}/etc/motd"], check=True)
    staging.sweep(root)
    assert ground.leftovers(root) == []
