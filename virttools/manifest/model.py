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


class UidBase(StrEnum):
    """What stands for a number that `virt create` chooses."""

    AUTO = "auto"


class DevLog(StrEnum):
    OWN = "own"
    SHARED = "shared"


class HomeLayout(StrEnum):
    """Where a user's home lies if nothing is said: /home/bob, or /home/b/bob as the HOWTO has it."""

    FLAT = "flat"
    LETTERS = "letters"


class Layers(StrEnum):
    """How an image is cut: all in one layer, or one for each profile, which images then share."""

    ONE = "one"
    PROFILE = "profile"


class Isolation(StrEnum):
    NAMESPACE = "namespace"
    CHROOT = "chroot"


class ProbeKind(StrEnum):
    """What a client of `virt test` speaks."""

    FTP = "ftp"
    HTTP = "http"
    IMAP = "imap"
    POP = "pop"
    POPPASS = "poppass"
    SMB = "smb"
    SMTP = "smtp"


class Restart(StrEnum):
    """When a daemon that has ended is started again."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NO = "no"


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The line that asked for something: `file` as shown to a user, `line` from 1 (0: a command-line option)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Binary:
    """A program by name (looked for in the PATH of DEFAULT_PATH) or by absolute host path.

    packages: what Debian has it and what it needs in, for who lacks it.
    """

    name: str
    optional: bool
    origin: Origin
    packages: tuple[str, ...] = ()


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
class Rate:
    """At most `connections` a second; who exceeds it waits `pause` seconds (cps of xinetd.conf(5))."""

    connections: int
    pause: int

    def __str__(self) -> str:
        return f"{self.connections} {self.pause}"


@dataclass(frozen=True, slots=True)
class ResourceLimit:
    """One setrlimit(2): `resource` is "files", "as", …; `value` in bytes, seconds or pieces, None: unlimited."""

    resource: str
    value: int | None

    def __str__(self) -> str:
        return f"{self.resource}={'unlimited' if self.value is None else self.value}"


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """Minutes of the day, from `start` up to but without `end`; across midnight where end is smaller."""

    start: int
    end: int

    def __str__(self) -> str:
        return "-".join(f"{time // 60}:{time % 60:02}" for time in (self.start, self.end))


@dataclass(frozen=True, slots=True)
class Service:
    """A program that answers connections on `port`, or a command run `every` so often (seconds).

    None: no limit. only_from, no_access, proxy_protocol: networks in canonical form; banner: a file
    of the tree; timeout: seconds. Every option is named as in xinetd.conf(5) or systemd.socket(5).
    """

    name: str
    port: int | None
    protocol: str
    user: str
    program: str
    args: tuple[str, ...]
    isolation: Isolation
    every: int | None
    origin: Origin
    groups: tuple[str, ...] = ()
    wait: bool = False
    bind: tuple[str, ...] = ()
    backlog: int = 1024
    instances: int | None = None
    per_source: int | None = None
    cps: Rate | None = None
    only_from: tuple[str, ...] = ()
    no_access: tuple[str, ...] = ()
    access_times: tuple[TimeSpan, ...] = ()
    log_on_success: tuple[str, ...] = ()
    log_on_failure: tuple[str, ...] = ("HOST",)
    banner: PurePosixPath | None = None
    timeout: int | None = None
    proxy_protocol: tuple[str, ...] = ()
    nice: int = 0
    rlimits: tuple[ResourceLimit, ...] = ()
    zygote: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether the program is given the listening socket; of udp, which has no connections, always."""
        return self.wait or self.protocol == "udp"


@dataclass(frozen=True, slots=True)
class Probe:
    """How a client shows that a service works: by `kind`, the protocol that it speaks.

    login: whether it logs in, too. anonymous: whether anybody may (ftp). path: what it asks for
    (http). expect: what must stand in the answer. port: which of a daemon's, None: its first.
    """

    service: str
    kind: ProbeKind
    port: int | None
    login: bool
    anonymous: bool
    path: str
    expect: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Daemon:
    """A program that runs all the time, in the foreground, and listens by itself.

    backoff: the longest wait before a restart, stop_timeout: from the stop signal to SIGKILL, both in
    seconds. ports: those it answers on, for whoever wants to know; nobody opens them for it.
    """

    name: str
    program: str
    args: tuple[str, ...]
    user: str
    groups: tuple[str, ...]
    isolation: Isolation
    restart: Restart
    backoff: int
    stop_signal: str
    stop_timeout: int
    ports: tuple[int, ...]
    nice: int
    rlimits: tuple[ResourceLimit, ...]
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
    """operations: as `--operations` takes them; keep: paths or globs in the tree that stay.

    own: those that only a living tree may hold, put there for a service after it was built.
    """

    operations: tuple[str, ...] = ("default",)
    keep: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """What an image of the tree says to who runs it: the config of the OCI image specification 1.1.

    env, labels, annotations: "name=value". ports: "80/tcp". user: "name" or "name:group" of the tree.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str | None = None
    workdir: PurePosixPath | None = None
    ports: tuple[str, ...] = ()
    volumes: tuple[PurePosixPath, ...] = ()
    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    stop_signal: str | None = None
    layers: Layers = Layers.ONE


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
    daemons: tuple[Daemon, ...] = ()
    probes: tuple[Probe, ...] = ()
    hooks: tuple[Hook, ...] = ()
    setuid: tuple[PurePosixPath, ...] = ()
    addresses: tuple[str, ...] = ()
    link: LinkMode = LinkMode.AUTO
    devlog: DevLog = DevLog.OWN
    uid_base: int | UidBase = 0
    etc: Etc = field(default_factory=Etc)
    home: Home = field(default_factory=Home)
    scrub: Scrub = field(default_factory=Scrub)
    image: Image = field(default_factory=Image)
    origins: tuple[tuple[str, Origin], ...] = ()
    """The line of every scalar and of every plain list value, by key ("link", "etc.hostname", "addresses[0]")."""

    @property
    def shift(self) -> int:
        """What is added to every id but 0: nothing while that is to be chosen, so in images too."""
        return 0 if isinstance(self.uid_base, UidBase) else self.uid_base


@dataclass(frozen=True, slots=True)
class Layer:
    """One manifest file as read: what it is called in messages and records, and its text (TOML)."""

    file: str
    text: str
