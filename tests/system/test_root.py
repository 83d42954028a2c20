"""A root is trusted only where nobody else can change it, and says exactly what is wrong where not."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import ground
from tests.system.calls import VIRT
from virttools.errors import ApplyError, Busy, ConfigError, NeedsPrivilege, UnknownDomain, VirtError
from virttools.tree import staging
from virttools.tree.root import Root, open_root, record_file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose parents are all in order."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def root(place: Path) -> Iterator[Root]:
    with open_root(str(place / "root"), make=True) as opened:
        yield opened


def said(error: VirtError) -> tuple[int, str, str | None]:
    return error.exit_code, error.message, error.hint


def test_a_root_is_made_with_modes_that_no_umask_changes(place: Path) -> None:
    """The root is for all to enter, .virt for its owner only."""
    before = os.umask(0o777)
    try:
        with open_root(str(place / "far/root"), make=True):
            pass
    finally:
        os.umask(before)
    found = {
        str(path.relative_to(place)): stat.S_IMODE(path.stat().st_mode)
        for path in place.rglob("*")
        if path.is_dir()
    }
    assert found == {
        "far": 0o755,
        "far/root": 0o755,
        "far/root/.virt": 0o700,
        **{
            f"far/root/.virt/{name}": 0o700
            for name in ("records", "store", "staging", "locks", "log")
        },
    }


def test_an_absent_root_is_said_to_have_no_domains(place: Path) -> None:
    """Reading commands meet status 68 and the command that makes one; nothing is created."""
    with pytest.raises(UnknownDomain) as caught:
        open_root(str(place / "root"))
    assert said(caught.value) == (
        68,
        f"cannot open {place}/root: there are no domains yet",
        "make one: virt create domain1.com",
    )
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_folder_on_the_way_that_others_write_is_named(place: Path, mode: int) -> None:
    """Path, mode and owner found, and the command that mends it."""
    bad = place / "bad"
    bad.mkdir()
    bad.chmod(mode)
    with pytest.raises(NeedsPrivilege) as caught:
        open_root(str(bad / "root"), make=True)
    status, message, hint = said(caught.value)
    assert (status, hint) == (77, f"chmod go-w {bad}")
    assert f"can write {bad} (mode {mode:04o}, owner root (0))" in message


def test_a_sticky_folder_on_the_way_is_no_danger_but_no_root(place: Path) -> None:
    """In /tmp others cannot rename what is ours; but a root open to all would hold their names too."""
    sticky = place / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    with open_root(str(sticky / "root"), make=True):
        pass
    with pytest.raises(NeedsPrivilege, match="everyone can write"):
        open_root(str(sticky), make=True)


def test_a_folder_on_the_way_of_somebody_else_is_named(place: Path, as_root: None) -> None:
    """Its owner could swap the root below it, whatever its mode."""
    bad = place / "bad"
    (bad / "root").mkdir(parents=True)
    os.chown(bad, 12345, 0)
    with pytest.raises(NeedsPrivilege) as caught:
        open_root(str(bad / "root"), make=True)
    assert said(caught.value) == (
        77,
        f"cannot use {bad}/root: {bad} belongs to 12345 (mode 0755), who could swap what lies there",
        f"chown 0 {bad}",
    )


def test_links_on_the_way_are_checked_as_folders_are(place: Path, as_root: None) -> None:
    """A link of ours to a sound folder serves; one of somebody else's does not, nor one to a bad folder."""
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    with open_root(str(place / "link/root"), make=True):
        assert (place / "real/root/.virt").is_dir()
    os.chown(place / "link", 12345, 12345, follow_symlinks=False)
    with pytest.raises(NeedsPrivilege, match="belongs to 12345"):
        open_root(str(place / "link/root"))
    (place / "real").chmod(0o777)
    (place / "other").symlink_to(place / "real")
    with pytest.raises(NeedsPrivilege, match=f"can write {place}/real "):
        open_root(str(place / "other/root"))
    (place / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="symbolic links"):
        open_root(str(place / "loop"), make=True)


def test_a_planted_virt_is_refused(place: Path) -> None:
    """.virt and what it holds are folders of ours with mode 0700, or nothing is done."""
    for number, plant in enumerate(("link", "file", "mode", "inner link")):
        here = place / str(number)
        here.mkdir()
        virt = here / ".virt"
        if plant == "link":
            virt.symlink_to("/tmp")
        elif plant == "file":
            virt.write_text("")
        else:
            virt.mkdir(mode=0o700)
            if plant == "mode":
                virt.chmod(0o755)
            else:
                (virt / "staging").symlink_to("/tmp")
        with pytest.raises(NeedsPrivilege, match=r"not a folder|it must be 0700"):
            open_root(str(here), make=True)


def test_a_root_that_is_a_file_is_a_wrong_setting(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory"):
        open_root(str(place / "file"), make=True)


def test_virt_on_another_file_system_is_refused(place: Path, as_root: None) -> None:
    """Publishing is a rename, which no two file systems share."""
    ground.leave_mounts()
    (place / "root").mkdir()
    with (
        ground.mounted(place / "root/.virt", "-t", "tmpfs", "-o", "mode=0700", "none"),
        pytest.raises(ConfigError, match="another file system"),
    ):
        open_root(str(place / "root"), make=True)


def test_domains_are_trees_that_have_a_record(root: Root) -> None:
    """Neither a record without a tree, a tree without a record, nor a link in its place is one."""
    here = Path(root.path)
    for name in ("whole.com", "tree-only.com"):
        (here / name).mkdir()
    (here / "link.com").symlink_to("whole.com")
    (here / "log").write_text("")
    for name in ("whole.com", "record-only.com", "link.com", "log"):
        (here / ".virt/records" / record_file(name)).write_text("{}")
    assert root.domains() == ("whole.com",)
    assert [root.has(name) for name in ("whole.com", "link.com", ".virt", "..", "a/b", "")] == [
        True,
        False,
        False,
        False,
        False,
        False,
    ]


def test_the_longest_name_has_a_record_too(root: Root) -> None:
    """253 characters and .json are more than a file's name may have."""
    name = ".".join(["a" * 62] * 4) + ".a"
    assert len(name) == 253
    ground.create(root, ground.plan(name, ground.folder("etc")))
    assert (root.domains(), root.read_record(name).domain) == ((name,), name)


def test_an_unknown_name_brings_the_one_that_is_meant(root: Root) -> None:
    ground.create(root, ground.plan("domain1.com"))
    with pytest.raises(UnknownDomain) as caught:
        root.read_record("domian1.com")
    assert said(caught.value) == (
        68,
        f"cannot read the record of domian1.com: there is no such domain below {root.path}",
        "did you mean domain1.com?",
    )
    for name in ("../root", ".virt", ""):
        with pytest.raises(UnknownDomain):
            root.lock(name)


def hold(root: Root, code: str) -> "subprocess.Popen[str]":
    """Another process that does `code` with the root, says so, and waits for its stdin to end."""
    script = (
        "import sys\nfrom virttools.tree.root import open_root\n"
        f"with open_root({root.path!r}) as root:\n    with {code}:\n"
        "        print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(root: Root) -> None:
    """Busy at once, with the pid and name of the holder; readers keep a writer out and each other not."""
    with hold(root, "root.lock('domain1.com')") as holder:
        for shared in (False, True):
            with pytest.raises(Busy, match=rf"process {holder.pid} \(.*\) works on it"):
                root.lock("domain1.com", shared=shared).__enter__()
        with root.lock("domain2.com"):
            pass
        holder.communicate("")
    with hold(root, "root.lock('domain1.com', shared=True)") as holder:
        with root.lock("domain1.com", shared=True):
            pass
        with pytest.raises(Busy, match=str(holder.pid)):
            root.lock("domain1.com").__enter__()
        holder.communicate("")


def test_a_lock_that_cannot_be_had_is_no_bug_of_ours(root: Root) -> None:
    """A read-only file system, or what somebody put there, is told as what it is: 74."""
    os.mkdir("a.com", dir_fd=root.locks_fd)
    with pytest.raises(ApplyError) as caught, root.lock("a.com"):
        pass
    assert said(caught.value)[:2] == (74, "cannot lock a.com: Is a directory")


def test_without_proc_that_is_what_is_said(place: Path, as_root: None) -> None:
    """In a chroot of their own, people forget to mount it: no later failure hides that."""
    line = 'umount --lazy /proc; exec "$0" remove --yes a.com'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", line, VIRT],
        env={"PATH": os.environ["PATH"], "VIRT_ROOT": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 68
    assert done.stderr.splitlines()[1].startswith("hint: mount -t proc proc /proc: ")


def test_a_lock_may_be_taken_again_below_itself(root: Root) -> None:
    """The composer and the doer that it calls may both hold it; a reader does not turn writer."""
    with root.lock_all(), root.lock("a.com"), root.lock("a.com"), root.lock("a.com", shared=True):
        with root.lock_all():
            pass
        assert os.listdir(root.locks_fd).count("a.com") == 1
    assert os.listdir(root.locks_fd) == [".all"]
    with root.lock("a.com", shared=True), pytest.raises(Busy), root.lock("a.com"):
        pass


def test_removing_a_lock_file_lets_nobody_in_twice(root: Root) -> None:
    """Eight processes that take, hold and (as the domain is not there) unlink one lock never meet inside."""
    script = (
        "import os, sys\nfrom virttools.errors import Busy\n"
        "from virttools.tree.root import open_root\n"
        f"flag = {root.path!r} + '/inside'\n"
        f"with open_root({root.path!r}) as root:\n"
        "    for _ in range(300):\n"
        "        try:\n"
        "            with root.lock('a.com'):\n"
        "                os.close(os.open(flag, os.O_CREAT | os.O_EXCL))\n"
        "                os.unlink(flag)\n"
        "        except Busy: pass\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    racers = [subprocess.Popen([sys.executable, "-c", script], env=env) for _ in range(4)]
    assert [racer.wait() for racer in racers] == [0] * 4


def test_a_sweep_spares_what_somebody_holds(root: Root) -> None:
    """Staging folders go when their batch's holder is gone; remains of a crash between renames too."""
    here = Path(root.path)
    live = staging.Batch(root)
    (here / ".virt/staging" / live.folder("live.com")).mkdir()
    dead = staging.Batch(root)
    (here / ".virt/staging" / dead.folder("dead.com") / "tree/etc").mkdir(parents=True)
    os.close(dead._lock_fd)
    (here / ".virt/staging/orphan.com.1.cafe").mkdir()
    (here / ".virt/records/lost.com.json").write_text("{}")
    (here / ".virt/locks/lost.com").write_text("")
    (here / ".virt/records/held.com.json").write_text("{}")
    with hold(root, "root.lock('held.com')") as holder:
        staging.sweep(root)
        holder.communicate("")
    assert [name.split(".")[0] for name in ground.leftovers(root)] == ["", "live"]
    assert os.listdir(root.records_fd) == ["held.com.json"]
    live.discard("live.com")
    live.close()
