"""A domain is there whole or not at all, whatever happens in between."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system import ground
from tests.system.ground import copy, folder, plan, record, symlink, text
from virttools import linux
from virttools.errors import ApplyError, DomainExists
from virttools.tree import apply, publish
from virttools.tree.actions import Plan
from virttools.tree.root import Root, open_root

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    tmp_path.chmod(0o755)
    with open_root(str(tmp_path / "root"), make=True) as opened:
        yield opened


def small(domain: str) -> Plan:
    return plan(
        domain,
        folder("etc"),
        folder("bin"),
        text("etc/hostname", domain.encode()),
        copy("bin/passwd", Path("/etc/passwd"), share=True),
        copy("etc/services", Path("/etc/services")),
        symlink("usr", "."),
    )


def test_a_batch_is_published_with_its_records(root: Root) -> None:
    """Trees, records of mode 0600, and nothing in staging."""
    ground.create(root, small("a.com"), small("b.com"))
    assert root.domains() == ("a.com", "b.com")
    found = root.read_record("b.com")
    assert (found.domain, [entry.path for entry in found.entries]) == (
        "b.com",
        sorted(ground.describe(Path(root.path, "b.com"))),
    )
    at = os.stat("b.com.json", dir_fd=root.records_fd)
    assert (at.st_mode & 0o7777, ground.leftovers(root)) == (0o600, [])
    assert [head.domain for head in root.heads()] == ["a.com", "b.com"]


def test_equal_builds_give_equal_records(root: Root) -> None:
    """No time, place or order of a build is in a record."""
    texts = []
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        ground.create(root, small("a.com"))
        os.umask(before)
        texts.append(Path(root.path, ".virt/records/a.com.json").read_bytes())
        os.rename(f"{root.path}/a.com", f"{root.path}/.virt/staging/old{umask}")
    assert texts[0] == texts[1]


@pytest.mark.parametrize("there", ["domain", "folder", "file", "link"])
def test_what_exists_is_not_touched(root: Root, there: str) -> None:
    """A domain keeps its tree and record; what we did not make is said to be not ours; nothing is published."""
    here = Path(root.path)
    if there == "domain":
        ground.create(root, small("a.com"))
    elif there == "folder":
        (here / "a.com").mkdir()
    elif there == "file":
        (here / "a.com").write_text("")
    else:
        (here / "a.com").symlink_to("/etc")
    before = (ground.describe(here), root.domains())
    other = plan("a.com", text("other"))
    with pytest.raises(DomainExists, match=r"it exists already|no record says that we made it"):
        ground.create(root, small("b.com"), other)
    after = (ground.describe(here), root.domains())
    before[0].pop("/.virt/store/index", None)
    assert {path: said for path, said in after[0].items() if not path.startswith("/.virt")} == {
        path: said for path, said in before[0].items() if not path.startswith("/.virt")
    }
    assert (after[1], ground.leftovers(root)) == (before[1], [])
    assert [name for name in root.recorded() if name != "a.com"] == []


def test_a_folder_made_at_the_last_moment_wins(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look and our rename somebody makes the folder: it stays theirs and is no domain."""
    theirs = Path(root.path, "a.com")
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        theirs.mkdir(exist_ok=True)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DomainExists, match="was made meanwhile"):
        ground.create(root, small("a.com"))
    assert (list(theirs.iterdir()), root.domains(), root.recorded()) == ([], (), ())
    assert ground.leftovers(root) == []


def test_a_failing_rename_publishes_nothing_of_that_domain(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input/output error leaves no record behind, and the domains before it whole."""
    real = linux.renameat2

    def renameat2(src_fd: int, src: str, dst_fd: int, dst: str, flags: int) -> None:
        if dst == "b.com":
            raise OSError(5, "Input/output error")
        real(src_fd, src, dst_fd, dst, flags)

    monkeypatch.setattr(linux, "renameat2", renameat2)
    with pytest.raises(ApplyError, match="Input/output error"):
        ground.create(root, small("a.com"), small("b.com"), small("c.com"))
    assert (root.domains(), sorted(root.recorded())) == (("a.com",), ["a.com"])
    assert ground.leftovers(root) == []


def test_remains_of_a_crash_do_not_hinder(root: Root) -> None:
    """A record without a tree (killed between the renames) is no domain, and is overwritten."""
    Path(root.path, ".virt/records/a.com.json").write_text("half a rec")
    assert (root.domains(), root.heads()) == ((), ())
    ground.create(root, small("a.com"))
    assert root.read_record("a.com").domain == "a.com"


def creator(path: str) -> None:
    """Create domains one after the other, two at a time, for ever."""
    with open_root(path) as root:
        apply.sweep(root)
        for number in range(10**6):
            with suppress(DomainExists):
                ground.create(root, small(f"{number}.com"), small(f"{number}.org"))


def test_60_kills_leave_whole_domains_only(root: Root) -> None:
    """SIGKILL at random moments: every domain listed is complete, a sweep clears the rest, create goes on."""
    ground.create(root, small("first.com"))
    expected = set(ground.describe(Path(root.path, "first.com")))
    moments = random.Random(2)
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                creator(root.path)
            os._exit(1)
        time.sleep(moments.uniform(0.002, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for name in root.domains():
            found = root.read_record(name)
            assert {entry.path for entry in found.entries} == expected
            assert set(ground.describe(Path(root.path, name))) == expected
    apply.sweep(root)
    assert ground.leftovers(root) == []
    assert sorted(root.recorded()) == list(root.domains())
    trees = [name for name in os.listdir(root.path) if not name.startswith(".")]
    assert sorted(trees) == list(root.domains())
    ground.create(root, small("last.com"))
    assert root.has("last.com")


def test_an_unpublished_build_is_taken_back(root: Root) -> None:
    """Whatever goes wrong between build and publish, `building` leaves nothing in staging."""
    with pytest.raises(ZeroDivisionError), apply.building(root, [small("a.com")]):
        _ = 1 / 0
    with apply.building(root, [small("a.com"), small("b.com")]) as (built, _):
        publish.publish(root, [(built, record(built))])
    assert (root.domains(), ground.leftovers(root)) == (("a.com",), [])
