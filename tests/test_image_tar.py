"""Tests of image/tar.py: what it writes, Python's tarfile and GNU tar read as it was meant."""

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from virttools.image import tar
from virttools.image.items import Item

TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "fifo": tarfile.FIFOTYPE,
}
IDS = st.integers(0, 2**32 - 2)
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda name: name not in (".", ".."))
GOLDEN = "b7c3f13f01dbabeb2634e86e51ae6e7c870fb0cc278f26bb416bbe85cd02aff3"
ATTRIBUTES = st.lists(
    st.tuples(st.just("user.").flatmap(lambda it: NAMES.map(lambda name: it + name)), st.binary()),
    max_size=2,
    unique_by=lambda pair: pair[0],
)


@st.composite
def items(draw: st.DrawFn) -> Item:
    kind = draw(st.sampled_from(sorted(TYPES)))
    return Item(
        path="/".join(draw(st.lists(NAMES, min_size=1, max_size=3))),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(IDS),
        gid=draw(IDS),
        mtime=draw(st.integers(0, 2**40)),
        size=draw(st.integers(0, 2**45)) if kind == "file" else 0,
        target=draw(NAMES) if kind == "symlink" else None,
        xattrs=tuple(draw(ATTRIBUTES)),
    )


def archive(*contents: tuple[Item, bytes]) -> bytes:
    found = b"".join(tar.header(item) + tar.padded(content) for item, content in contents)
    return found + tar.end(len(found))


def members(content: bytes) -> Sequence[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as found:
        return found.getmembers()


@given(items())
def test_python_reads_back_every_field(item: Item) -> None:
    """Names of any length and alphabet, large ids, sizes and times, attributes with any content."""
    written = tar.header(item)
    with tarfile.open(fileobj=io.BytesIO(written + bytes(1024)), mode="r:") as opened:
        read = opened.next()
    assert read is not None
    assert (read.name, read.type, read.mode, read.uid, read.gid, read.mtime, read.size) == (
        item.path,
        TYPES[item.type],
        item.mode,
        item.uid,
        item.gid,
        item.mtime,
        item.size,
    )
    assert read.linkname == (item.target or "")
    told = {key for key in read.pax_headers if key.startswith("SCHILY.xattr.")}
    assert told == {
        f"SCHILY.xattr.{name}".replace("%", "%25").replace("=", "%3D") for name, _ in item.xattrs
    }
    assert all(b"=" + value + b"\n" in written for _, value in item.xattrs)


def test_a_device_a_hard_link_and_the_top_are_what_they_are() -> None:
    """A device has its numbers, a link no content, and the top is called `.`."""
    plain = Item(path="", type="file", mode=0o644, uid=0, gid=0)
    found = members(
        archive(
            (replace(plain, path="", type="directory"), b""),
            (replace(plain, path="a", type="file", size=3), b"abc"),
            (replace(plain, path="b", type="file", size=3, link="a"), b""),
            (replace(plain, path="null", type="device", device=("c", 1, 3)), b""),
            (replace(plain, path="sda", type="device", device=("b", 259, 70000)), b""),
        )
    )
    assert [(one.name, one.type, one.size, one.linkname) for one in found] == [
        (".", tarfile.DIRTYPE, 0, ""),
        ("a", tarfile.REGTYPE, 3, ""),
        ("b", tarfile.LNKTYPE, 0, "a"),
        ("null", tarfile.CHRTYPE, 0, ""),
        ("sda", tarfile.BLKTYPE, 0, ""),
    ]
    assert [(one.devmajor, one.devminor) for one in found[3:]] == [(1, 3), (259, 70000)]
    assert {(one.uname, one.gname) for one in found} == {("", "")}


def test_gnu_tar_unpacks_hostile_names_and_attributes(tmp_path: Path) -> None:
    """Newlines, broken UTF-8, 300 characters, an equals sign in the name of an attribute."""
    names = ("new\nline", "bro\udcffken", "l" * 250 + "/" + "x" * 250, "-rf", " blank ")
    plain = Item(path="", type="file", mode=0o640, uid=os.geteuid(), gid=os.getegid())
    folder = replace(plain, path="l" * 250, type="directory", mode=0o755)
    files = [replace(plain, path=name, type="file", mode=0o640, size=1) for name in names]
    marked = replace(plain, path="z", xattrs=(("user.a=b%", b"\0=\n"),))
    content = archive((folder, b""), *((one, b"!") for one in files), (marked, b""))
    subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "-C", tmp_path, "-xpf", "-"],
        input=content,
        check=True,
    )
    for name in names:
        assert (tmp_path / name).read_bytes() == b"!"
        assert (tmp_path / name).stat().st_mode & 0o7777 == 0o640
    assert os.getxattr(tmp_path / "z", "user.a=b%") == b"\0=\n"


def test_the_bytes_of_an_archive_never_change_by_accident() -> None:
    """Every version of Python on every machine writes this digest: who pins images counts on it."""
    content = archive(
        (Item(path="", type="directory", mode=0o755, uid=0, gid=0), b""),
        (
            Item(path="é" * 90, type="file", mode=0o4755, uid=5, gid=2**31, mtime=1, size=2),
            b"ab",
        ),
        (Item(path="s", type="symlink", mode=0o777, uid=0, gid=0, target="t" * 101), b""),
    )
    assert len(content) % 10240 == 0
    assert hashlib.sha256(content).hexdigest() == GOLDEN
