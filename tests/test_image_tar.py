"""Headers of tar archives, as other programs read them."""

import io
import os
import tarfile
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from virttools.image import tar
from virttools.image.items import Item

NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=120
).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
NUMBERS = st.one_of(st.integers(0, 65535), st.integers(0, 2**32 - 2))
ITEMS = st.builds(
    Item,
    path=PATHS,
    type=st.sampled_from(["file", "directory", "symlink", "fifo", "device"]),
    mode=st.integers(0, 0o7777),
    uid=NUMBERS,
    gid=NUMBERS,
    mtime=st.integers(0, 2**34),
    size=st.one_of(st.just(0), st.integers(0, 3000)),
    target=PATHS,
    device=st.tuples(st.sampled_from("cb"), st.integers(0, 4095), st.integers(0, 2**20 - 1)),
)
_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def archive(*items: Item) -> tarfile.TarFile:
    """What tarfile makes of these items; contents are zeros."""
    file = io.BytesIO()
    for item in items:
        file.write(tar.header(item))
        if item.type == "file" and item.link is None:
            file.write(bytes(item.size) + tar.padding(item.size))
    file.write(tar.end(file.tell()))
    assert file.tell() % tar.RECORD == 0
    return tarfile.open(fileobj=io.BytesIO(file.getvalue()), encoding="utf-8")


@given(ITEMS, ITEMS)
def test_what_is_written_is_what_others_read(first: Item, second: Item) -> None:
    """Path, type, mode, owner, size, time, target and device of any item, and the next one is found."""
    for item, member in zip((first, second), archive(first, second), strict=True):
        assert member.name == item.path
        assert (member.mode, member.uid, member.gid) == (item.mode, item.uid, item.gid)
        assert (member.mtime, member.uname, member.gname) == (item.mtime, "", "")
        if item.type == "device":
            kind = tarfile.BLKTYPE if item.device and item.device[0] == "b" else tarfile.CHRTYPE
            found = ("b" if kind == tarfile.BLKTYPE else "c", member.devmajor, member.devminor)
            assert (member.type, found) == (kind, item.device)
        else:
            assert member.type == _TYPES[item.type]
        assert member.size == (item.size if item.type == "file" else 0)
        if item.type == "symlink":
            assert member.linkname == item.target


def test_a_second_name_and_its_attributes_are_kept() -> None:
    """A hard link has no content; capabilities, which are any bytes, stand with the first name."""
    capability = bytes(range(20))
    one = Item(
        path="a",
        type="file",
        mode=0o755,
        uid=0,
        gid=0,
        size=3,
        xattrs=(("security.capability", capability),),
    )
    first, second = archive(one, replace(one, path="b", link="a"))
    kept = first.pax_headers["SCHILY.xattr.security.capability"]
    assert kept.encode("utf-8", "surrogateescape") == capability
    assert (second.type, second.linkname, second.size) == (tarfile.LNKTYPE, "a", 0)


def test_names_that_are_no_text_keep_their_bytes() -> None:
    """A name is bytes to the kernel; the top of the tree is `./`."""
    name = os.fsdecode(b"caf\xe9\n-x")
    top = Item(path="", type="directory", mode=0o755, uid=0, gid=0)
    odd = Item(path=name, type="file", mode=0o644, uid=0, gid=0)
    assert tar.header(odd).count(b"path=caf\xe9\n-x\n") == 1
    assert tar.header(top)[:3] == b"./\0"


def test_the_bytes_of_a_header_never_change() -> None:
    """Digests of images rest on these: whoever changes one changes every image."""
    item = Item(path="etc/passwd", type="file", mode=0o644, uid=0, gid=42, size=5, mtime=7)
    header = tar.header(item)
    assert header[:157] == (
        b"etc/passwd".ljust(100, b"\0")
        + b"0000644\0" + b"0000000\0" + b"0000052\0" + b"00000000005\0" + b"00000000007\0"
        + b"011215\0 " + b"0"
    )  # fmt: skip
