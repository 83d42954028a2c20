"""The symlinks virtNAME: what may be one, what one runs, and what is never touched."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.dispatch import _program
from virttools.enter import links
from virttools.enter.links import Bin, Link
from virttools.errors import ApplyError, CheckFailed, DomainExists, UsageError


@pytest.fixture
def virt(tmp_path: Path) -> Path:
    """A `virt` and its other names, in a folder of their own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "virt").write_text("#!/bin/sh\n")
    for name in ("virtfs", "virtexec", "virtuald"):
        (folder / name).symlink_to("virt")
    return folder / "virt"


@pytest.fixture
def beside(virt: Path) -> Iterator[Bin]:
    """The folder that virt lies in."""
    with Bin(str(virt.parent), str(virt)) as folder:
        yield folder


def states(folder: Bin) -> dict[str, str]:
    return {link.name: link.state for link in folder.links()}


@pytest.mark.parametrize(
    ("word", "link"),
    [
        ("passwd", Link("passwd", "passwd")),
        ("newuser=useradd", Link("newuser", "useradd")),
        ("mkfs.ext4", Link("mkfs.ext4", "mkfs.ext4")),
        ("c++", Link("c++", "c++")),
        ("-x", None),
        ("=useradd", None),
        ("newuser=", None),
        ("a=b=c", None),
        ("", None),
        (".", None),
        ("..", None),
        (".virt", None),
        ("a/b", None),
        ("a=/bin/b", None),
        ("a b", None),
        ("a\nb", None),
        ("x" * 252, None),
        ("fs", None),
        ("exec", None),
        ("uald", None),
        ("exec=passwd", None),
    ],
)
def test_a_word_names_a_link_or_is_refused(word: str, link: Link | None) -> None:
    """Plain file names only; virtfs, virtexec and virtuald keep their meaning."""
    if link is not None:
        assert links.read(word) == link
        return
    with pytest.raises(UsageError, match="cannot link"):
        links.read(word)


def test_links_beside_virt_are_short(virt: Path, beside: Bin) -> None:
    """They lead to `virt` by its name: the folder may be moved as it is."""
    made = beside.make([links.read(word) for word in ("passwd", "newuser=useradd")])
    assert [link.name for link in made] == ["passwd", "newuser"]
    found = {path.name: os.readlink(path) for path in virt.parent.rglob("*") if path.is_symlink()}
    assert found == {
        **dict.fromkeys(("virtfs", "virtexec", "virtuald", "virtpasswd"), "virt"),
        "virtnewuser": ".virt/useradd",
        "useradd": "../virt",
    }


def test_a_link_alone_says_what_it_runs(virt: Path, beside: Bin, tmp_path: Path) -> None:
    """Also where the folder was moved, and through links to the folder."""
    beside.make([links.read(word) for word in ("passwd", "newuser=useradd")])
    virt.parent.rename(tmp_path / "moved")
    (tmp_path / "other").symlink_to("moved")
    for folder in ("moved", "other"):
        path = tmp_path / folder / "virtnewuser"
        assert path.resolve() == tmp_path / "moved/virt"
        assert _program(str(path), "newuser") == "useradd"
        assert _program(str(path.with_name("virtpasswd")), "passwd") == "passwd"


def test_a_folder_of_its_own_gets_whole_paths(virt: Path, tmp_path: Path) -> None:
    """Where no virt of ours lies beside, links lead to the one that was called."""
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/virt").write_text("another virt")
    with Bin(str(tmp_path / "sbin"), str(virt)) as folder:
        folder.make([links.read(word) for word in ("passwd", "newuser=useradd")])
        assert states(folder) == {"passwd": "ok", "newuser": "ok"}
    assert os.readlink(tmp_path / "sbin/virtpasswd") == str(virt)
    assert (tmp_path / "sbin/virtnewuser").resolve() == virt


def test_making_again_changes_nothing(beside: Bin) -> None:
    """What is there already is left as it is, and not told as made."""
    wanted = [links.read(word) for word in ("passwd", "newuser=useradd", "passwd")]
    assert len(beside.make(wanted)) == 2
    assert beside.make(wanted) == []


def test_what_is_not_ours_is_neither_replaced_nor_removed(virt: Path, beside: Bin) -> None:
    """A file, a folder, a foreign link, a broken one; and then nothing else is made or removed."""
    bin_ = virt.parent
    (bin_ / "virtfile").write_text("kept")
    (bin_ / "virtfolder").mkdir()
    (bin_ / "virttrue").symlink_to("/bin/true")
    (bin_ / "virtgone").symlink_to("nowhere")
    beside.make([links.read("passwd")])
    before = {path.name: os.lstat(path).st_ino for path in bin_.iterdir()}
    for name in ("file", "folder", "true", "gone"):
        with pytest.raises(DomainExists, match="is not ours"):
            beside.make([links.read("vi"), links.read(name)])
        with pytest.raises(DomainExists, match="is not ours"):
            beside.remove(["passwd", name])
    assert {path.name: os.lstat(path).st_ino for path in bin_.iterdir()} == before
    assert states(beside) == {
        "file": "foreign",
        "folder": "foreign",
        "true": "foreign",
        "gone": "broken",
        "passwd": "ok",
    }


def test_another_program_needs_an_unlink_first(beside: Bin) -> None:
    """A name never changes its meaning in silence."""
    beside.make([links.read("newuser=useradd")])
    with pytest.raises(DomainExists, match="runs useradd"):
        beside.make([links.read("newuser=adduser")])
    with pytest.raises(DomainExists, match="runs useradd"):
        beside.make([links.read("newuser")])
    with pytest.raises(DomainExists, match="runs vi"):
        beside.make([links.read("edit=vi"), links.read("edit=nano")])


def test_what_is_removed_leaves_nothing_behind(virt: Path, beside: Bin) -> None:
    """The link of a program goes with the last name that needs it."""
    before = sorted(path.name for path in virt.parent.iterdir())
    words = ("passwd", "newuser=useradd", "user=useradd", "edit=vi")
    beside.make([links.read(word) for word in words])
    beside.remove(["newuser", "edit"])
    assert os.listdir(virt.parent / ".virt") == ["useradd"]
    assert states(beside) == {"passwd": "ok", "user": "ok"}
    beside.remove(["user", "passwd", "user"])
    assert sorted(path.name for path in virt.parent.iterdir()) == before


def test_a_link_to_an_old_name_is_ours_too(virt: Path) -> None:
    """As the HOWTO makes them: ln -s /usr/bin/virtexec /usr/bin/virtpasswd; even where names are copies."""
    (virt.parent / "virtexec").unlink()
    (virt.parent / "virtexec").write_text("a copy, as a wheel installs it")
    (virt.parent / "virtpasswd").symlink_to(virt.parent / "virtexec")
    with Bin(str(virt.parent), str(virt)) as beside:
        assert states(beside) == {"passwd": "ok"}
        beside.remove(["passwd"])


def test_what_a_crash_leaves_is_taken_up(virt: Path, beside: Bin) -> None:
    """A program's link without a name does no harm; a name whose program's link is gone is mended."""
    (virt.parent / ".virt").mkdir()
    (virt.parent / ".virt/useradd").symlink_to("../virt")
    assert beside.make([links.read("newuser=useradd")]) == [Link("newuser", "useradd")]
    (virt.parent / ".virt/useradd").unlink()
    assert states(beside) == {"newuser": "broken"}
    (virt.parent / "virtnewuser").unlink()
    beside.make([links.read("newuser=useradd")])
    assert states(beside) == {"newuser": "ok"}


def test_what_is_missing_is_said(virt: Path, beside: Bin, tmp_path: Path) -> None:
    """A link, a folder, a virt that is not there."""
    with pytest.raises(CheckFailed, match="there is no"):
        beside.remove(["passwd"])
    with pytest.raises(ApplyError, match="cannot open"):
        Bin(str(tmp_path / "none"), str(virt))
    with pytest.raises(ApplyError, match="is not there"):
        Bin(str(tmp_path), str(tmp_path / "none/virt"))


names = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1)


@given(st.lists(st.tuples(names, names), max_size=8))
def test_any_names_that_are_taken_come_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    """Whatever is accepted makes a link that runs just that, and leaves nothing when removed."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "virt").write_text("")
    wanted: dict[str, Link] = {}
    for name, program in pairs:
        try:
            link = links.read(f"{name}={program}")
        except UsageError:
            continue
        wanted.setdefault(link.name, link)
    with Bin(str(folder), str(folder / "virt")) as beside:
        beside.make(list(wanted.values()))
        assert {link.name: link.program for link in beside.links()} == {
            name: link.program for name, link in wanted.items()
        }
        for name, link in wanted.items():
            assert _program(str(folder / f"virt{name}"), name) == link.program
        beside.remove(list(wanted))
    assert os.listdir(folder) == ["virt"]
