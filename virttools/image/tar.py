"""Values: the headers of a tar archive, POSIX pax format (pax(1), IEEE Std 1003.1-2017): equal items, equal bytes.

Written out here, since what tarfile writes has changed between versions of Python.
"""

from collections.abc import Iterable, Iterator

from virttools.image.items import Item

BLOCK = 512
RECORD = 20 * BLOCK
"""Archives are a multiple of this long, as tar(1) has it."""

_TYPES = {"file": b"0", "symlink": b"2", "directory": b"5", "fifo": b"6"}
_LINK = b"1"
_HIGHEST = 8**7 - 1  # of a field of eight bytes
_LARGEST = 8**11 - 1  # of one of twelve


def header(item: Item, *, prefix: str = "") -> bytes:
    """All blocks that come before the content of an item. prefix: goes before its path."""
    name = _bytes(prefix + item.path) or b"."
    if item.type == "directory":
        name += b"/"
    is_link = item.link is not None
    target = _bytes(prefix + item.link) if item.link is not None else _bytes(item.target or "")
    size = item.size if item.type == "file" and not is_link else 0
    extended = list(_extended(item, name, target, size))
    kind = _LINK if is_link else _TYPES.get(item.type) or _device_type(item)
    blocks = b""
    if extended:
        records = b"".join(_record(key, value) for key, value in sorted(extended))
        blocks = _block(b"PaxHeaders/" + name[:80], b"x", len(records), item) + padded(records)
    return blocks + _block(name, kind, size, item, target)


def padding(size: int) -> bytes:
    """What fills the last block of a content of `size` bytes."""
    return bytes(-size % BLOCK)


def padded(content: bytes) -> bytes:
    return content + padding(len(content))


def end(written: int) -> bytes:
    """What comes after the last item, when `written` bytes came before it."""
    return bytes(2 * BLOCK + (-(written + 2 * BLOCK)) % RECORD)


def file(path: str, size: int, mtime: int) -> Item:
    """A plain file of root's, for archives of documents."""
    return Item(path=path, type="file", mode=0o644, uid=0, gid=0, mtime=mtime, size=size)


def folder(path: str, mtime: int) -> Item:
    """A plain folder of root's."""
    return Item(path=path, type="directory", mode=0o755, uid=0, gid=0, mtime=mtime)


def _extended(item: Item, name: bytes, target: bytes, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The records for what does not fit into the fields of ustar."""
    if len(name) > 100 or not name.isascii():
        yield b"path", name
    if len(target) > 100 or not target.isascii():
        yield b"linkpath", target
    for key, value, most in (
        (b"uid", item.uid, _HIGHEST),
        (b"gid", item.gid, _HIGHEST),
        (b"size", size, _LARGEST),
        (b"mtime", item.mtime, _LARGEST),
    ):
        if value > most:
            yield key, b"%d" % value
    for attribute, content in _attributes(item):
        # An equals sign would end the key: GNU tar's way to write it (xattrs.c, xattr_encode_keyword).
        escaped = _bytes(attribute).replace(b"%", b"%25").replace(b"=", b"%3D")
        yield b"SCHILY.xattr." + escaped, content


def _attributes(item: Item) -> Iterable[tuple[str, bytes]]:
    return item.xattrs if item.link is None else ()


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3  # blank, equals sign, newline
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _device_type(item: Item) -> bytes:
    assert item.device is not None, item.type
    return b"4" if item.device[0] == "b" else b"3"


def _block(name: bytes, kind: bytes, size: int, item: Item, target: bytes = b"") -> bytes:
    major, minor = (item.device[1], item.device[2]) if item.device else (0, 0)
    fields = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(item.mode if kind != b"x" else 0o644, 8),
            _octal(min(item.uid, _HIGHEST), 8),
            _octal(min(item.gid, _HIGHEST), 8),
            _octal(min(size, _LARGEST), 12),
            _octal(min(item.mtime, _LARGEST), 12),
            b" " * 8,
            kind,
            target[:100].ljust(100, b"\0"),
            b"ustar\0" + b"00",
            bytes(64),  # the names of user and group: numbers are what counts inside
            _octal(min(major, _HIGHEST), 8),
            _octal(min(minor, _HIGHEST), 8),
            bytes(155 + 12),
        )
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
