"""Values: what `virt serve` serves: endpoints that listen, and the targets that their addresses lead to."""

from virttools.serve.admission import Limits
from virttools.serve.routes import Routes, pack


class Ids:
    """Who a program runs as: numbers of the tree's own passwd and group."""

    __slots__ = ("gid", "groups", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...]) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups


class Place:
    """Where a program runs. isolation: "namespace", "chroot", or "none": the host itself.

    identity: device and inode of the folder when it was looked at; hostname: of the namespace.
    """

    __slots__ = ("domain", "folder", "hostname", "identity", "isolation")

    def __init__(
        self,
        domain: str,
        folder: str,
        *,
        isolation: str = "namespace",
        hostname: str = "",
        identity: tuple[int, int] = (0, 0),
    ) -> None:
        self.domain = domain
        self.folder = folder
        self.isolation = isolation
        self.hostname = hostname
        self.identity = identity

    def key(self) -> tuple[str, int, int, str]:
        """What the namespace was built from; another one is needed where this differs."""
        return (self.folder, *self.identity, self.hostname)


_SETS: dict[frozenset[str], frozenset[str]] = {}


class Target:
    """One service of one domain: the program, who it runs as, and what it may use.

    ids None: root. rlimits: (RLIMIT_ number, value or -1). every: seconds, for a periodic command.
    timeout: seconds a connection may last, 0 for ever. banner: sent before the program starts.
    zygote: the interpreter of the script that path is, and its words, where one forks for each connection.
    """

    __slots__ = (
        "argv", "banner", "env", "every", "ids", "limits", "log_failure", "log_success", "nice", "path",
        "place", "proxies", "rlimits", "service", "timeout", "zygote",
    )  # fmt: skip

    def __init__(
        self,
        service: str,
        place: Place,
        *,
        path: bytes,
        argv: tuple[bytes, ...],
        env: dict[bytes, bytes],
        ids: Ids | None = None,
        limits: Limits | None = None,
        nice: int = 0,
        rlimits: tuple[tuple[int, int], ...] = (),
        timeout: int = 0,
        every: int = 0,
        banner: bytes = b"",
        proxies: tuple[str, ...] = (),
        zygote: tuple[bytes, ...] = (),
        log_success: frozenset[str] = frozenset(),
        log_failure: frozenset[str] = frozenset(("HOST",)),
    ) -> None:
        self.service = service
        self.place = place
        self.path = path
        self.argv = argv
        self.env = env
        self.ids = ids
        self.limits = limits or Limits()
        self.nice = nice
        self.rlimits = rlimits
        self.timeout = timeout
        self.every = every
        self.banner = banner
        self.proxies = proxies
        self.zygote = zygote
        # A thousand domains say the same: they share one set each.
        self.log_success = _SETS.setdefault(log_success, log_success)
        self.log_failure = _SETS.setdefault(log_failure, log_failure)

    @property
    def name(self) -> str:
        """As it is called in logs, status and metrics."""
        return f"{self.service} {self.place.domain or 'host'}"

    @property
    def has_worker(self) -> bool:
        """Whether a process of its own is needed, because posix_spawn(3) cannot set such things, or to fork."""
        return self.ids is not None or self.nice != 0 or bool(self.rlimits or self.zygote)


class Endpoint:
    """What is listened on, and where its connections go: positions in Board.targets by local address.

    kind "tcp" or "udp"; address "0.0.0.0" or "::" for any; is_wait: the program of the target
    `default` gets the listening socket itself. routes: asked for an address that targets lacks;
    folders: the targets by what it answers. options: of setsockopt(2), set before it listens.
    """

    __slots__ = (
        "address", "backlog", "default", "folders", "is_wait", "kind", "options", "port", "routes",
        "targets",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        address: str,
        port: int,
        *,
        backlog: int = 1024,
        is_wait: bool = False,
        targets: dict[str, int] | None = None,
        routes: Routes | None = None,
        folders: dict[str, int] | None = None,
        default: int | None = None,
        options: tuple[tuple[int, int, int], ...] = (),
    ) -> None:
        self.options = options
        self.kind = kind
        self.address = address
        self.port = port
        self.backlog = backlog
        self.is_wait = is_wait
        self.targets = targets or {}
        self.routes = routes
        self.folders = folders or {}
        self.default = default

    def key(self) -> tuple[str, str, int]:
        return (self.kind, self.address, self.port)

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.kind} {host}:{self.port}"


class Daemon:
    """A program of a domain that runs all the time: who it runs as, how it is started anew and ended.

    ids, rlimits: as of a Target; backoff, stop_seconds: the longest wait before a restart, and from
    stop_signal to SIGKILL. ports: for who asks, nobody opens them.
    """

    __slots__ = (
        "argv", "backoff", "env", "ids", "name", "nice", "path", "place", "ports", "restart", "rlimits",
        "stop_seconds", "stop_signal",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        place: Place,
        *,
        path: bytes,
        argv: tuple[bytes, ...],
        env: dict[bytes, bytes],
        ids: Ids | None = None,
        nice: int = 0,
        rlimits: tuple[tuple[int, int], ...] = (),
        restart: str = "always",
        backoff: int = 60,
        stop_signal: int = 15,
        stop_seconds: int = 10,
        ports: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.place = place
        self.path = path
        self.argv = argv
        self.env = env
        self.ids = ids
        self.nice = nice
        self.rlimits = rlimits
        self.restart = restart
        self.backoff = backoff
        self.stop_signal = stop_signal
        self.stop_seconds = stop_seconds
        self.ports = ports

    def key(self) -> tuple[str, str]:
        """Which it is: of a domain, by its name."""
        return (self.place.domain, self.name)

    def likeness(self) -> str:
        """What must be the same for one that runs to be left alone."""
        ids = None if self.ids is None else (self.ids.uid, self.ids.gid, self.ids.groups)
        env = sorted(self.env.items())
        return repr(
            (
                self.place.key(), self.place.isolation, self.path, self.argv, env, ids, self.nice,
                self.rlimits, self.restart, self.backoff, self.stop_signal, self.stop_seconds,
            )
        )  # fmt: skip


class Board:
    """Everything that is served. notes: what is worth a line in the log, such as a domain left out."""

    __slots__ = ("daemons", "endpoints", "notes", "targets")

    def __init__(
        self,
        targets: tuple[Target, ...] = (),
        endpoints: tuple[Endpoint, ...] = (),
        notes: tuple[str, ...] = (),
        daemons: tuple[Daemon, ...] = (),
    ) -> None:
        self.daemons = daemons
        self.targets = targets
        self.endpoints = endpoints
        self.notes = notes


class Finder:
    """Finds the target for a local address of one endpoint; routes are asked once per address."""

    __slots__ = ("_endpoint", "_known")

    _MOST = 65536

    def __init__(self, endpoint: Endpoint) -> None:
        self._known: dict[str, int | None] = dict(endpoint.targets)
        self._endpoint = endpoint

    def find(self, address: str) -> int | None:
        """The position of the target, or None."""
        try:
            return self._known[address]
        except KeyError:
            return self._look(address)

    def _look(self, address: str) -> int | None:
        endpoint, found = self._endpoint, self._endpoint.default
        packed = pack(address.partition("%")[0])
        if endpoint.routes is not None and packed is not None:
            found = endpoint.folders.get(endpoint.routes.find(packed, endpoint.port) or "")
        if len(self._known) < self._MOST:
            self._known[address] = found
        return found
