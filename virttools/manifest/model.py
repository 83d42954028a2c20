"""What a manifest declares, merged and checked. Every value knows the line it came from."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath


class LinkMode(StrEnum):
    """How files get into a tree; `auto` takes the cheapest way that is safe for each file."""

    AUTO = "auto"
    REFLINK = "reflink"
    HARD = "hard"
    COPY = "copy"


class DevLog(StrEnum):
    OWN = "own"
    SHARED = "shared"


class HomeLayout(StrEnum):
    """Where a user's home lies if nothing is said: /home/bob, or /home/b/bob as the HOWTO has it."""

    FLAT = "flat"
    LETTERS = "letters"


class Isolation(StrEnum):
    NAMESPACE = "namespace"
    CHROOT = "chroot"


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The line that asked for something: `file` as shown to a user, `line` from 1 (0: a command-line option)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Binary:
    """A program by name (looked for in the PATH of DEFAULT_PATH) or by absolute host path."""

    name: str
    optional: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Package:
    """The files of an installed dpkg or rpm package, less documentation and man pages."""

    name: str
    optional: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class File:
    """A host path or glob. Without `target` it keeps its path; None for mode and owner keeps the host's."""

    source: str
    target: PurePosixPath | None
    mode: int | None
    owner: str | None
    group: str | None
    optional: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Directory:
    path: PurePosixPath
    mode: int
    owner: str
    group: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Symlink:
    """`path` in the tree points to `target`, which is text and may be absolute (inside the tree) or relative."""

    path: PurePosixPath
    target: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Device:
    """A character or block node; `type` is "c" or "b"."""

    path: PurePosixPath
    type: str
    major: int
    minor: int
    mode: int
    owner: str
    group: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Template:
    """A jinja2 template, by name below templates/ (a site's own win) or by absolute host path."""

    source: str
    target: PurePosixPath
    mode: int
    owner: str
    group: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class User:
    """An account of the tree. uid None: the next free one; password is a crypt(5) field, "!" locks it."""

    name: str
    uid: int | None
    group: str | None
    groups: tuple[str, ...]
    gecos: str
    home: PurePosixPath | None
    shell: str
    password: str
    create_home: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    gid: int | None
    members: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Service:
    """A program that answers connections on `port`, or a command run `every` so often (seconds)."""

    name: str
    port: int | None
    protocol: str
    user: str
    program: str
    args: tuple[str, ...]
    isolation: Isolation
    every: int | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Etc:
    """The skeleton of /etc: which files are written, and what they say.

    timezone "host" is the host's own zone; nameservers empty means those of the host.
    """

    skeleton: tuple[str, ...] = ()
    hostname: str | None = None
    timezone: str = "UTC"
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    motd: str | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """`letters` makes /home/a … /home/z; `skel` fills the homes of declared users."""

    layout: HomeLayout = HomeLayout.FLAT
    mode: int = 0o750


@dataclass(frozen=True, slots=True)
class Scrub:
    """operations: as `--operations` takes them; keep: paths or globs in the tree that stay."""

    operations: tuple[str, ...] = ("default",)
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """A host program run by root, in "/", with VIRT_DOMAIN and VIRT_TREE in its environment.

    phase: `built`, before scrubbing, with VIRT_TREE the staging tree; or `published`, with it the domain's.
    """

    phase: str
    argv: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything one tree must hold. Lists are in order of declaration, later files last."""

    profiles: tuple[str, ...] = ()
    binaries: tuple[Binary, ...] = ()
    packages: tuple[Package, ...] = ()
    files: tuple[File, ...] = ()
    directories: tuple[Directory, ...] = ()
    symlinks: tuple[Symlink, ...] = ()
    devices: tuple[Device, ...] = ()
    templates: tuple[Template, ...] = ()
    users: tuple[User, ...] = ()
    groups: tuple[Group, ...] = ()
    services: tuple[Service, ...] = ()
    hooks: tuple[Hook, ...] = ()
    setuid: tuple[PurePosixPath, ...] = ()
    addresses: tuple[str, ...] = ()
    link: LinkMode = LinkMode.AUTO
    devlog: DevLog = DevLog.OWN
    uid_base: int = 0
    etc: Etc = field(default_factory=Etc)
    home: Home = field(default_factory=Home)
    scrub: Scrub = field(default_factory=Scrub)
    origins: tuple[tuple[str, Origin], ...] = ()
    """The line of every scalar and of every plain list value, by key ("link", "etc.hostname", "addresses[0]")."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One manifest file as read: what it is called in messages and records, and its text (TOML)."""

    file: str
    text: str
