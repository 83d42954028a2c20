"""Tests of image/items.py: what belongs into an image, in which order, and in which layer."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.image import items
from virttools.image.items import Item, Layer
from virttools.manifest import model
from virttools.manifest.model import Layers
from virttools.tree.record import Entry, Record


def file(path: str, content: str = "", *, link: str | None = None) -> Item:
    return Item(path=path, type="file", mode=0o644, uid=0, gid=0, sha256=content, link=link)


def folder(path: str) -> Item:
    return Item(path=path, type="directory", mode=0o755, uid=0, gid=0)


def entry(
    path: str, origin: str, *, source: str | None = "/bin/x", package: str | None = "x"
) -> Entry:
    return Entry(
        path=path, type="file", mode=0o644, uid=0, gid=0, sha256="s", source=source,
        package=package, rule="binaries", origin=origin,
    )  # fmt: skip


def paths(layers: tuple[Layer, ...]) -> dict[str, list[str]]:
    return {layer.name: [item.path for item in layer.items] for layer in layers}


BASE = "/usr/share/virttools/profiles/base.toml:3"
FTP = "/etc/virttools/profiles/ftp.toml:1"
TREE = tuple(map(folder, ("", "bin", "etc", "srv"))) + tuple(
    map(file, ("bin/sh", "bin/ftp", "etc/hosts", "srv/page"))
)
RECORD = Record(
    domain="a.com",
    layers=tuple(model.Layer(file, "") for file in (BASE[:-2], FTP[:-2], "mine.toml")),
    addresses=(),
    profiles=(),
    entries=(
        entry("/bin/sh", BASE),
        entry("/bin/ftp", FTP),
        entry("/etc/hosts", BASE, source="hosts.j2", package=None),
    ),
)


@pytest.mark.parametrize(
    ("path", "kind", "is_wanted"),
    [
        ("run", "directory", True),
        ("run/sshd", "directory", True),
        ("run/sshd.pid", "file", False),
        ("var/cache/man/index.db", "file", False),
        ("var/cache/man", "directory", True),
        ("tmp", "directory", True),
        ("tmp/x", "directory", False),
        ("var/tmp/x", "file", False),
        ("dev/shm/x", "file", False),
        ("dev/log", "socket", False),
        ("dev/null", "device", True),
        ("proc/1", "directory", False),
        ("runner/x", "file", True),
        ("home/bob/tmp/x", "file", True),
    ],
)
def test_what_a_run_leaves_is_no_part_of_an_image(path: str, kind: str, is_wanted: bool) -> None:  # noqa: FBT001
    """Sockets, temporary files and caches stay out; folders that programs count on stay in."""
    assert items.is_wanted(path, kind) is is_wanted


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        ("security.capability", True),
        ("security.capabilityx", False),
        ("security.selinux", False),
        ("trusted.overlay.opaque", False),
        ("system.posix_acl_access", True),
        ("user.mime", True),
    ],
)
def test_attributes_of_the_host_stay_there(name: str, is_kept: bool) -> None:  # noqa: FBT001
    """Without its access list a file's group would be let in as far as the list's mask."""
    assert items.is_kept_xattr(name) is is_kept


def test_one_layer_holds_everything() -> None:
    """The default: every item, as it came."""
    assert paths(items.cut(TREE, RECORD, Layers.ONE)) == {"(here)": [it.path for it in TREE]}


def test_each_profile_has_a_layer_and_what_is_left_another() -> None:
    """What a profile brought from the host goes with it; texts made for the domain do not."""
    assert paths(items.cut(TREE, RECORD, Layers.PROFILE)) == {
        "base": ["", "bin", "bin/sh"],
        "ftp": ["", "bin", "bin/ftp"],
        "(here)": ["", "etc", "etc/hosts", "srv", "srv/page"],
    }


def test_a_layer_of_a_profile_is_equal_in_every_image() -> None:
    """What else is in the tree changes nothing in it, so images share the layer."""
    other = (*(it for it in TREE if it.path != "bin/ftp"), file("srv/other", "x"))
    first, second = (items.cut(tree, RECORD, Layers.PROFILE) for tree in (TREE, other))
    assert next(it for it in first if it.name == "base") == next(
        it for it in second if it.name == "base"
    )


def test_names_of_one_inode_stay_in_one_layer() -> None:
    """A hard link cannot lead from one layer into another: the second name goes where the first is."""
    tree = (folder(""), folder("bin"), file("bin/ftp"), file("bin/sh", link="bin/ftp"))
    assert paths(items.cut(tree, RECORD, Layers.PROFILE))["ftp"] == [
        "",
        "bin",
        "bin/ftp",
        "bin/sh",
    ]


def test_an_order_of_bytes_in_which_folders_come_first() -> None:
    """`a`, then what is in it, then `a-b`: by parts, not by the whole path; links after what they link."""
    found = items.ordered(
        [file("a-b"), file("a/z", link="a/z"), file("a/b", link="a/z"), folder("a"), folder("")]
    )
    assert [(it.path, it.link) for it in found] == [
        ("", None),
        ("a", None),
        ("a/b", None),
        ("a/z", "a/b"),
        ("a-b", None),
    ]


@given(st.sampled_from([name for name in Item.__slots__ if name not in ("path", "type")]))
def test_a_key_tells_every_difference(name: str) -> None:
    """Layers whose items differ in anything, or that are packed otherwise, have different keys."""
    one = file("a")
    changed: dict[str, Any] = {name: ("c", 1, 2)}
    other = replace(one, **changed)
    assert items.key(Layer("x", (one,))) != items.key(Layer("x", (other,)))
    assert items.key(Layer("x", (one,))) == items.key(Layer("y", (one,)))
    assert items.key(Layer("x", (one,)), "gzip") != items.key(Layer("x", (one,)), "zstd")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [("a/.wh.b", True), (".wh..wh..opq", True), ("a.wh.b", False), (".wh", False)],
)
def test_a_name_that_deletes_others_is_found(path: str, is_one: bool) -> None:  # noqa: FBT001
    """A tenant's file called .wh.x would delete x in a lower layer."""
    assert items.whiteout([folder(""), file(path)]) == (path if is_one else None)


def test_only_what_a_package_ships_unchanged_is_as_shipped() -> None:
    """Not a file whose content is another, nor one without a package, nor one in /etc."""
    entries = (
        entry("/bin/a", BASE),
        entry("/bin/b", BASE),
        entry("/bin/c", BASE, package=None),
        entry("/etc/d", BASE),
    )
    found = [file("bin/a", "s"), file("bin/b", "t"), file("bin/c", "s"), file("etc/d", "s")]
    assert items.as_shipped(found, entries) == {"/bin/a"}


def test_times_are_clamped_and_never_raised() -> None:
    """SOURCE_DATE_EPOCH is the latest time there is; what is older keeps its own."""
    found = items.clamped([replace(file("a"), mtime=5), replace(file("b"), mtime=50)], 9)
    assert [item.mtime for item in found] == [5, 9]
