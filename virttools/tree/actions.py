"""Values: the actions a plan is made of. Paths are relative to the tree and canonical; modes are octal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from virttools.host.facts import Why


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDir:
    path: str
    mode: int
    uid: int
    gid: int
    why: Why

    def __str__(self) -> str:
        return f"mkdir    {self.mode:04o} {self.uid}:{self.gid} /{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFile:
    """A host file, by content. `share`: it may be one inode in many trees (DESIGN 7.3), through the store.

    size bytes; mtime_ns nanoseconds, kept; identity: (device, inode, size, mtime_ns, ctime_ns) when surveyed.
    md5: the package's own checksum (hex): equal content is known to be public. reflink: clone if it can be.
    """

    path: str
    source: Path
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    identity: tuple[int, int, int, int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    share: bool
    reflink: bool
    package: tuple[str, str] | None
    md5: str | None
    why: Why

    def __str__(self) -> str:
        verb = "share" if self.share else "copy"
        return f"{verb:<8} {self.mode:04o} {self.uid}:{self.gid} {self.source} -> /{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFile:
    """A second name of a file that this plan makes earlier (the host has hard links there)."""

    path: str
    existing: str
    why: Why
    package: tuple[str, str] | None

    def __str__(self) -> str:
        return f"link     /{self.existing} -> /{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """A file whose text the plan holds; `source` names the template."""

    path: str
    content: bytes
    mode: int
    uid: int
    gid: int
    source: str
    why: Why

    def __str__(self) -> str:
        return (
            f"write    {self.mode:04o} {self.uid}:{self.gid} "
            f"{self.source} ({len(self.content)} bytes) -> /{self.path}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSymlink:
    path: str
    target: str
    package: tuple[str, str] | None
    why: Why

    def __str__(self) -> str:
        return f"symlink  /{self.path} -> {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeNode:
    """A device node: type "c" or "b"."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    why: Why

    def __str__(self) -> str:
        return (
            f"mknod    {self.mode:04o} {self.uid}:{self.gid} "
            f"{self.type} {self.major},{self.minor} /{self.path}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSocket:
    """A socket bound outside the trees gets a second name in this one (`source` is relative to the root)."""

    path: str
    source: str
    why: Why

    def __str__(self) -> str:
        return f"link     {self.source} -> /{self.path}"


Action: TypeAlias = MakeDir | CopyFile | LinkFile | WriteFile | MakeSymlink | MakeNode | LinkSocket


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What turns an empty staging folder into the tree: directories first, parents before children."""

    domain: str
    actions: tuple[Action, ...]
    warnings: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def document(action: Action) -> dict[str, Any]:
    """An action as JSON has it: its kind, its path as seen from inside, modes as octal text, and why."""
    found: dict[str, Any] = {"action": _KIND[type(action)], "path": f"/{action.path}"}
    for key in ("uid", "gid", "size", "target", "type", "major", "minor", "share"):
        if hasattr(action, key):
            found[key] = getattr(action, key)
    mode = getattr(action, "mode", None)
    if mode is not None:
        found["mode"] = f"{mode:04o}"
    if isinstance(action, LinkFile):
        found["existing"] = f"/{action.existing}"
    if isinstance(action, WriteFile):
        found["size"] = len(action.content)
    source = getattr(action, "source", None)
    if source is not None:
        found["source"] = str(source)
    found["rule"], found["origin"] = action.why.rule, str(action.why.origin)
    if action.why.by is not None:
        found["by"] = str(action.why.by)
    return found


_KIND: dict[type[Action], str] = {
    MakeDir: "mkdir",
    CopyFile: "copy",
    LinkFile: "link",
    WriteFile: "write",
    MakeSymlink: "symlink",
    MakeNode: "mknod",
    LinkSocket: "socket",
}
