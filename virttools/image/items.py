"""Values: what an image holds, one item for each path, and how items are cut into layers."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from virttools.manifest.model import Layers
from virttools.tree.record import Entry, Record

_KEPT_XATTRS = frozenset(
    ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
)
_WHITEOUT = ".wh."  # layer.md of the OCI image specification: deletes what a lower layer has
# What a run leaves there is no part of an image; programs count on the folders all the same.
_FOLDERS_ONLY = ("run/", "var/run/", "var/cache/", "var/lock/")
_EMPTY = ("tmp/", "var/tmp/", "dev/shm/", "proc/", "sys/")
_OURS = "(here)"
"""The name of the layer of what no profile brought alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One path of an image, relative to its top; "" is the top itself.

    type: "file", "directory", "symlink", "device" or "fifo". mode: S_IMODE bits. mtime: seconds since
    1970. size: bytes, sha256: hex, both of files. link: the path of an item with the same inode, before this one.
    device: (type, major, minor). xattrs: (name, value), sorted.
    """

    path: str
    type: str
    mode: int
    uid: int
    gid: int
    mtime: int = 0
    size: int = 0
    sha256: str | None = None
    target: str | None = None
    link: str | None = None
    device: tuple[str, int, int] | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """Items that go into one layer, in the order of their paths' bytes. name: of the profile, or "(here)"."""

    name: str
    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(item.size for item in self.items if item.link is None)


def is_wanted(path: str, kind: str) -> bool:
    """Whether what lies at a path of a tree belongs into an image: no sockets, nothing of a run."""
    if kind == "socket" or path.startswith(_EMPTY):
        return False
    return kind == "directory" or not path.startswith(_FOLDERS_ONLY)


def is_kept_xattr(name: str) -> bool:
    """Capabilities, access lists and the users' own; the rest belongs to the host."""
    return name in _KEPT_XATTRS or name.startswith("user.")


def whiteout(items: Iterable[Item]) -> str | None:
    """The first path that a layer cannot hold: who unpacks it would delete something instead."""
    return next(
        (it.path for it in items if f"/{it.path}".rpartition("/")[2].startswith(_WHITEOUT)), None
    )


def clamped(found: Iterable[Item], epoch: int) -> tuple[Item, ...]:
    """The items with no time later than `epoch`, seconds since 1970."""
    return tuple(replace(it, mtime=epoch) if it.mtime > epoch else it for it in found)


def as_shipped(found: Iterable[Item], entries: Iterable[Entry]) -> frozenset[str]:
    """The paths, as seen from inside, whose content is still what a package ships to everybody.

    Not those in /etc, where an administrator of the host may have had a hand in them.
    """
    shipped = {
        entry.path: entry.sha256
        for entry in entries
        if entry.package is not None and not entry.path.startswith("/etc/")
    }
    return frozenset(
        f"/{item.path}"
        for item in found
        if item.sha256 is not None and shipped.get(f"/{item.path}") == item.sha256
    )


def key(layer: Layer, *more: str) -> str:
    """A digest (hex of SHA-256) of all that a layer holds, contents included, and of `more`.

    Equal keys mean equal bytes: what was packed once need not be packed again.
    """
    found = hashlib.sha256(repr(more).encode())
    for item in layer.items:
        # ascii(), since what repr() escapes depends on the Unicode version of Python.
        found.update(ascii(item).encode())
    return found.hexdigest()


def cut(items: Sequence[Item], record: Record, how: Layers) -> tuple[Layer, ...]:
    """The layers of an image, lowest first; each has the folders that its files lie in.

    record: tells what profile brought a path. A file goes into the layer of the profile that asked
    for it, if its content depends on nothing else.
    """
    if how is Layers.ONE:
        return (Layer(_OURS, tuple(items)),)
    profiles = {
        entry.path[1:]: _profile(entry.origin.rpartition(":")[0], entry) for entry in record.entries
    }
    known = {item.path: item for item in items}
    names: dict[str, dict[str, Item]] = {_profile(one.file): {} for one in record.layers}
    for item in items:
        if item.type == "directory":
            continue
        # A second name stands where the first does: a link cannot lead into another layer.
        name = profiles.get(item.link or item.path, _OURS)
        chosen = names.setdefault(name, {})
        chosen.update({path: known[path] for path in _above(item.path)})
        chosen[item.path] = item
    rest = names.pop(_OURS, {})
    placed = {path for chosen in names.values() for path in chosen}
    rest |= {item.path: item for item in items if item.path not in placed}
    rest |= {path: known[path] for below in tuple(rest) for path in _above(below)}
    names[_OURS] = rest
    return tuple(
        Layer(name, tuple(sorted(chosen.values(), key=_order)))
        for name, chosen in names.items()
        if chosen
    )


def checksums(found: Iterable[Item]) -> str:
    """The digests of all files, as sha256sum(1) checks them from the top of a tree.

    That program marks a name with a backslash, or with a new line, by a backslash before the line.
    """
    lines = []
    for item in found:
        if item.type == "file":
            name = item.path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
            mark = "" if name == item.path else "\\"
            lines.append(f"{mark}{item.sha256}  ./{name}\n")
    return "".join(lines)


def ordered(items: Iterable[Item]) -> tuple[Item, ...]:
    """By the bytes of their paths, part by part: a folder, then what is in it.

    Of several names of one inode the first in that order is the file, the others are links to it.
    """
    first: dict[str, str] = {}
    found = []
    for item in sorted(items, key=_order):
        if item.link is None:
            found.append(item)
            continue
        name = first.setdefault(item.link, item.path)
        found.append(replace(item, link=None if name == item.path else name))
    return tuple(found)


def _order(item: Item) -> list[bytes]:
    return item.path.encode("utf-8", "surrogateescape").split(b"/")


def _above(path: str) -> Iterable[str]:
    """The folders that a path lies in, from the top."""
    yield ""
    for index, sign in enumerate(path):
        if sign == "/":
            yield path[:index]


def _profile(file: str, entry: Entry | None = None) -> str:
    """profiles/NAME.toml → NAME. What a template made says the domain's own, so it is nobody's."""
    folder, _, name = file.rpartition("/")
    if entry is not None and entry.type == "file" and (entry.source or "")[:1] != "/":
        return _OURS
    return name.removesuffix(".toml") if folder.endswith("profiles") else _OURS
