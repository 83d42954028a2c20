"""Values: what was found on the host for a manifest, and why each thing is wanted."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from virttools.manifest.model import Origin


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    DEVICE = "device"
    SOCKET = "socket"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class Why:
    """The reason a path is in a tree.

    rule: "binaries", "files", "DT_NEEDED libc.so.6", "#! interpreter", "link", "pam bundle: links libpam.so.0" …
    by: the tree path that asked for it, or None where the manifest did.
    origin: the manifest line at the start of the chain.
    """

    rule: str
    by: PurePosixPath | None
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """One thing of the host that belongs in the tree.

    path: where in the tree: absolute, canonical (no parent is a link in the tree).
    source: the host path to read it from (under --source-root: below that).
    mode: permission and set-id bits, S_IMODE. uid, gid: the host's.
    size: bytes; mtime_ns, ctime_ns nanoseconds; device, inode, nlink as stat(2) has them.
    xattrs: (name, value), sorted: security.capability, ACLs and user.* of files.
    package: (name, version) of the package that owns it, or None.
    md5: the checksum the package database has for this path (hex), or None.
    explicit: a manifest line names this very path (a file or binary), it was not drawn in by a rule.
    owner, group: names that the manifest gives it instead of the host's; the tree's accounts number them.
    """

    path: PurePosixPath
    kind: Kind
    source: Path
    mode: int
    uid: int
    gid: int
    size: int = 0
    target: str | None = None
    mtime_ns: int = 0
    ctime_ns: int = 0
    device: int = 0
    inode: int = 0
    nlink: int = 1
    xattrs: tuple[tuple[str, bytes], ...] = ()
    package: tuple[str, str] | None = None
    md5: str | None = None
    explicit: bool = False
    owner: str | None = None
    group: str | None = None
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the host says to one manifest. A plan depends on this, the manifest and the domain's name only.

    entries: sorted by path. group_names, user_names: the host's names of the ids that entries carry.
    timezone: the host's zone ("Europe/Paris"), "UTC" where unknown.
    nameservers, search: from the host's resolv.conf, dereferenced.
    templates: (source as the manifest has it, text) of every template and skeleton file.
    warnings: sentences for the user (a binary that audits). absent: of optional things that are not here.
    """

    entries: tuple[HostEntry, ...]
    user_names: tuple[tuple[int, str], ...] = ()
    group_names: tuple[tuple[int, str], ...] = ()
    timezone: str = "UTC"
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    templates: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Details:
    """What a database says of an installed package. files: how many it has, None where not known.

    licence: an SPDX expression, or None where its words (licence_words) do not make one for sure.
    """

    version: str
    architecture: str
    maintainer: str
    source: str
    files: int | None
    licence: str | None
    licence_words: str
    kind: str
