"""Values: what a build put into a tree and why, and its JSON form. Holds no time, host name or salt."""

import json
from dataclasses import dataclass
from typing import Any

from virttools.errors import ApplyError
from virttools.manifest.model import DevLog, Layer

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path of a tree, absolute as seen from inside.

    type: "file", "directory", "symlink", "device", "socket", "fifo". mode: S_IMODE bits. size: bytes.
    sha256: hex, of files. link: the first path with the same inode, where the plan linked them. target: of symlinks.
    device: (type, major, minor). xattrs: (name, hex of value).
    package, version: of the package the content came from. source: host path, or template.
    rule, by, origin: why it is there (host.facts.Why), origin as "file:line".
    """

    path: str
    type: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    sha256: str | None = None
    target: str | None = None
    link: str | None = None
    device: tuple[str, int, int] | None = None
    xattrs: tuple[tuple[str, str], ...] = ()
    package: str | None = None
    version: str | None = None
    source: str | None = None
    shared: bool = False
    rule: str
    by: str | None = None
    origin: str

    def document(self) -> dict[str, Any]:
        """This entry as JSON has it: keys without a value are left out, the mode is octal text."""
        found: dict[str, Any] = {"path": self.path, "type": self.type, "mode": f"{self.mode:04o}"}
        found["uid"], found["gid"] = self.uid, self.gid
        if self.type == "file":
            found["size"] = self.size
        for key in ("sha256", "target", "link", "package", "version", "source", "by"):
            value = getattr(self, key)
            if value is not None:
                found[key] = value
        if self.device is not None:
            found["device"] = list(self.device)
        if self.xattrs:
            found["xattrs"] = dict(self.xattrs)
        if self.shared:
            found["shared"] = True
        found["rule"], found["origin"] = self.rule, self.origin
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A domain as it was built: the manifest's layers, lowest first, and every entry, sorted by path."""

    domain: str
    layers: tuple[Layer, ...]
    addresses: tuple[str, ...]
    profiles: tuple[str, ...]
    uid_base: int = 0
    devlog: DevLog = DevLog.OWN
    entries: tuple[Entry, ...]


def encode(record: Record, lines: dict[int, str] | None = None) -> bytes:
    """The record as JSON text, one entry a line; equal records give equal bytes.

    lines: the text of entries by their id(), kept between records that share entries (all alive).
    """
    known = {} if lines is None else lines
    head = {
        "schema": SCHEMA,
        "domain": record.domain,
        "addresses": list(record.addresses),
        "profiles": list(record.profiles),
        "uid_base": record.uid_base,
        "devlog": record.devlog,
        "layers": [{"file": layer.file, "text": layer.text} for layer in record.layers],
    }
    for entry in record.entries:
        if id(entry) not in known:
            known[id(entry)] = json.dumps(entry.document(), separators=(",", ":"))
    text = ",\n".join([known[id(entry)] for entry in record.entries])
    return f'{json.dumps(head)[:-1]}, "entries": [\n{text}\n]}}\n'.encode()


@dataclass(frozen=True, slots=True)
class Head:
    """What a list of domains tells, from the first line of a record."""

    domain: str
    addresses: tuple[str, ...]
    profiles: tuple[str, ...]
    uid_base: int = 0
    devlog: DevLog = DevLog.OWN


def head(first_line: bytes, name: str) -> Head:
    """The head of a record; `name` is for messages. Raises ApplyError where it is not one of ours."""
    try:
        found = json.loads(first_line.rstrip() + b"]}")
        return Head(
            found["domain"],
            tuple(found["addresses"]),
            tuple(found["profiles"]),
            found["uid_base"],
            _devlog(found),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(name, error) from error


def layers(first_line: bytes, name: str) -> tuple[Layer, ...]:
    """The manifest's layers, from the first line of a record. Raises ApplyError as `head` does."""
    try:
        found = json.loads(first_line.rstrip() + b"]}")
        return tuple(Layer(layer["file"], layer["text"]) for layer in found["layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(name, error) from error


def decode(text: bytes, name: str) -> Record:
    """Read a record back; `name` is for messages. Raises ApplyError where it is not one of ours."""
    try:
        found = json.loads(text)
        if found["schema"] != SCHEMA:
            raise ApplyError(
                f"cannot read {name}: its schema is {found['schema']}, this version knows {SCHEMA}",
                hint="use the version of virttools that wrote it",
            )
        return Record(
            domain=found["domain"],
            layers=tuple(Layer(layer["file"], layer["text"]) for layer in found["layers"]),
            addresses=tuple(found["addresses"]),
            profiles=tuple(found["profiles"]),
            uid_base=found["uid_base"],
            devlog=_devlog(found),
            entries=tuple(_entry(row) for row in found["entries"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(name, error) from error


def _devlog(found: dict[str, Any]) -> DevLog:
    """Records of before 0.2 do not say it; nobody had bound a socket for those."""
    return DevLog(found.get("devlog", DevLog.OWN))


def _damaged(name: str, error: Exception) -> ApplyError:
    return ApplyError(
        f"cannot read {name}: it is damaged ({error!r})",
        hint="restore it from a backup, or remove the domain and create it again",
    )


def _entry(row: dict[str, Any]) -> Entry:
    device = row.pop("device", None)
    xattrs = row.pop("xattrs", {})
    mode = int(row.pop("mode"), 8)
    return Entry(
        mode=mode,
        device=None if device is None else (device[0], device[1], device[2]),
        xattrs=tuple(xattrs.items()),
        **row,
    )
