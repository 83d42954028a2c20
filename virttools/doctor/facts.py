"""Values: what was found on the machine and in a tree, for checks to judge."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from virttools.devlog.freshness import State
from virttools.errors import Problem
from virttools.manifest.model import DevLog, Layer, Manifest
from virttools.serve.routes import Routes
from virttools.tree.ranges import Held
from virttools.tree.record import Entry


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that the kernel does not give. cause: what that breaks; mend: a command."""

    what: str
    cause: str
    mend: str
    is_needed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutesFile:
    """A routes file of virtuald. routes: None where it cannot be read, problems or fault say why.

    faults: why a folder that it names cannot be served, by folder. trust: why virtuald refuses it.
    """

    path: str
    is_ours: bool = False
    routes: Routes | None = None
    problems: tuple[Problem, ...] = ()
    fault: str | None = None
    trust: str | None = None
    faults: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InetdLine:
    """A line of inetd.conf that runs virtuald.

    is_limited: it sets a number of starts a minute. is_listener: virtuald is given a stream socket that
    listens on every address.
    """

    line: int
    label: str
    conf: str
    argv: tuple[str, ...]
    is_wait: bool
    is_limited: bool
    is_listener: bool


@dataclass(frozen=True, slots=True)
class Inetd:
    """An inetd.conf: its lines of virtuald, and what inetd would skip or guess at."""

    path: str
    lines: tuple[InetdLine, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """A virtNAME that leads nowhere."""

    path: str
    target: str
    word: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that cannot be used, in the words of the error that was met. name: a domain's, or ""."""

    name: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class HostsLine:
    """A line of the host's /etc/hosts."""

    line: int
    address: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine. virt: how this `virt` is called for this root; mount: (point, options that harm).

    refused: the root, where it cannot be used. damaged: records. unrecorded: (domain, file) of records without a tree.
    unsynced: routes files that `services sync` would write. owners: domains by packed address in hex.
    absent: addresses of domains that no interface has; interface: where an alias would go.
    held: ids of the machine's own accounts, and those lent by subuid(5) and subgid(5).
    running: uids of processes, by pid. free_base: a `uid_base` from which none of all these is.
    is_open: everybody may pass through the root, to the trees.
    """

    virt: str = "virt"
    root: str = "/virtual"
    lacks: tuple[Lack, ...] = ()
    refused: Refused | None = None
    damaged: tuple[Refused, ...] = ()
    mount: tuple[str, tuple[str, ...]] | None = None
    leftovers: tuple[str, ...] = ()
    unrecorded: tuple[tuple[str, str], ...] = ()
    links: tuple[BrokenLink, ...] = ()
    inetd: Inetd | None = None
    routes: tuple[RoutesFile, ...] = ()
    unsynced: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    interface: str = "lo"
    has_server: bool = False
    resolvers: tuple[str, ...] = ()
    hosts: tuple[HostsLine, ...] = ()
    held: tuple[Held, ...] = ()
    running: Mapping[int, frozenset[int]] = field(default_factory=dict)
    free_base: int | None = None
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """What lies at a path of a tree. type: as in a record; mode: S_IMODE bits."""

    type: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Names:
    """A file with several names. inside: those found in the tree; count: all; is_stored: one is the store's."""

    inside: tuple[str, ...]
    count: int
    is_stored: bool


@dataclass(frozen=True, slots=True)
class Person:
    """A line of a tree's passwd. has_home: its home is a folder inside."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    has_home: bool


@dataclass(frozen=True, slots=True)
class OldFile:
    """A library that is not the host's of today. now: version of the host's package, or None."""

    path: str
    package: str | None
    version: str | None
    now: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """What one walk through a tree came to. top: the tree's own folder.

    statuses: of recorded paths. writable: what everybody may write to, of the parts that are root's.
    set_id: programs that run as root, or with a group, whoever starts them.
    """

    top: Status
    statuses: Mapping[str, Status] = field(default_factory=dict)
    writable: tuple[tuple[str, Status], ...] = ()
    set_id: tuple[tuple[str, Status], ...] = ()
    names: tuple[Names, ...] = ()
    covered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A domain. mounts: on or below its tree, here; is_apart: on another file system than the root.

    outsiders: processes that have ids of the domain and are not inside.
    fault: why its tree cannot be looked at; then nothing else is known.
    """

    domain: str
    path: str
    fault: str | None = None
    layers: tuple[Layer, ...] = ()
    manifest: Manifest = field(default_factory=Manifest)
    addresses: tuple[str, ...] = ()
    uid_base: int = 0
    entries: tuple[Entry, ...] = ()
    devlog: DevLog = DevLog.OWN
    log: State = State.FRESH
    log_cause: str | None = None
    walked: Walked
    mounts: tuple[str, ...] = ()
    is_apart: bool = False
    people: tuple[Person, ...] | None = ()
    groups: tuple[tuple[str, int], ...] = ()
    resolvers: tuple[str, ...] = ()
    has_pam: bool = False
    has_pam_other: bool = True
    has_submit_cf: bool = False
    old: tuple[OldFile, ...] = ()
    outsiders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """What is kept of each tree for the checks that compare domains."""

    domain: str
    layers: tuple[Layer, ...]
    uid_base: int
    users: tuple[tuple[int, str], ...]
    is_unheard: bool
    serves: tuple[str, ...]
    daemons: tuple[str, ...]
    has_submit_cf: bool
