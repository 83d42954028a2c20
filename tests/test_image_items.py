"""What goes into an image, and into which of its layers."""

from dataclasses import replace

from virttools.image import items
from virttools.image.items import Item, Layer
from virttools.manifest import model
from virttools.manifest.model import Layers
from virttools.tree.record import Entry, Record


def folder(path: str) -> Item:
    return Item(path=path, type="directory", mode=0o755, uid=0, gid=0)


def file(path: str, **more: object) -> Item:
    made = Item(path=path, type="file", mode=0o644, uid=0, gid=0, size=10, sha256="0" * 64)
    return replace(made, **more)  # type: ignore[arg-type]  # of Item


def entry(path: str, origin: str, source: str | None = "/x") -> Entry:
    return Entry(
        path=f"/{path}", type="file", mode=0o644, uid=0, gid=0, rule="files", origin=origin, source=source
    )  # fmt: skip


def record(*entries: Entry) -> Record:
    files = ("profiles/base.toml", "/etc/virttools/profiles/ftp.toml", "mine.toml")
    layers = tuple(model.Layer(file, "") for file in files)
    return Record(domain="a.com", layers=layers, addresses=(), profiles=(), entries=entries)


def paths(layer: Layer) -> list[str]:
    return [item.path for item in layer.items]


def test_what_a_run_leaves_is_left_out() -> None:
    """No sockets, nothing in /tmp; of /run and caches the folders, which programs count on."""
    wanted = {
        ("run/lock", "directory"): True,
        ("run/utmp", "file"): False,
        ("var/cache/samba", "directory"): True,
        ("var/cache/x", "file"): False,
        ("tmp", "directory"): True,
        ("tmp/x", "directory"): False,
        ("var/tmp/x", "file"): False,
        ("dev/log", "socket"): False,
        ("dev/null", "device"): True,
        ("runner/x", "file"): True,
        ("etc/passwd", "file"): True,
    }
    assert {key: items.is_wanted(*key) for key in wanted} == wanted


def test_items_are_in_the_order_of_their_bytes() -> None:
    """A folder, then what is in it: "a-b" does not come between "a" and "a/b"; the first name is the file."""
    found = items.ordered(
        [file("z", link="z"), folder("a"), file("a-b"), file("a/b", link="z"), folder("")]
    )
    assert [(item.path, item.link) for item in found] == [
        ("", None), ("a", None), ("a/b", None), ("a-b", None), ("z", "a/b"),
    ]  # fmt: skip


def test_each_profile_has_a_layer_with_the_folders_above() -> None:
    """What a template wrote says the domain's own, and lies on top with what nobody asked for."""
    found = items.ordered(
        [folder(""), folder("etc"), folder("usr"), folder("usr/bin"), folder("srv"),
         file("usr/bin/sh"), file("usr/bin/ftp"), file("etc/passwd"), file("usr/bin/mine")]
    )  # fmt: skip
    layers = items.cut(
        found,
        record(
            entry("usr/bin/ftp", "/etc/virttools/profiles/ftp.toml:2"),
            entry("usr/bin/sh", "profiles/base.toml:1"),
            entry("etc/passwd", "profiles/base.toml:3", source="etc/passwd.j2"),
            entry("usr/bin/mine", "mine.toml:3"),
        ),
        Layers.PROFILE,
    )
    assert {layer.name: paths(layer) for layer in layers} == {
        "base": ["", "usr", "usr/bin", "usr/bin/sh"],
        "ftp": ["", "usr", "usr/bin", "usr/bin/ftp"],
        "(here)": ["", "etc", "etc/passwd", "srv", "usr", "usr/bin", "usr/bin/mine"],
    }
    assert [layer.name for layer in layers] == ["base", "ftp", "(here)"]
    (whole,) = items.cut(found, record(), Layers.ONE)
    assert whole.items == found


def test_a_hard_link_stays_with_the_file_that_it_names() -> None:
    """Whatever asked for the second name: a link cannot lead into another layer."""
    found = items.ordered([folder(""), file("a", link="a"), file("b", link="a")])
    origins = (entry("a", "profiles/base.toml:1"), entry("b", "profiles/x.toml:1"))
    layers = items.cut(found, record(*origins), Layers.PROFILE)
    assert {layer.name: paths(layer) for layer in layers} == {"base": ["", "a", "b"]}


def test_equal_keys_mean_equal_layers() -> None:
    """Every attribute of every item, the order and the way of packing count; the name does not."""
    one = Layer("a", (folder(""), file("x")))
    keys = {
        items.key(one, "gzip"),
        items.key(one, "zstd"),
        items.key(Layer("a", (folder(""), file("x", sha256="1" * 64))), "gzip"),
        items.key(Layer("a", (folder(""), file("x", mode=0o600))), "gzip"),
        items.key(Layer("a", (folder(""), file("x", xattrs=(("user.a", b"1"),)))), "gzip"),
        items.key(Layer("a", (file("x"), folder(""))), "gzip"),
    }
    assert len(keys) == 6
    assert items.key(Layer("b", one.items), "gzip") == items.key(one, "gzip")
