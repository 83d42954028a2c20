"""What is to be served: of every domain's record, or of an inetd.conf."""

import json
import os
import resource
import signal
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from virttools.enter import accounts, environment, inside, program
from virttools.enter.accounts import Account
from virttools.errors import ConfigError, VirtError
from virttools.manifest import model
from virttools.manifest.load import reload
from virttools.manifest.model import Layer, Manifest, ResourceLimit, Service
from virttools.serve import admission, conffile, inetdconf, internal, routes
from virttools.serve.board import Board, Daemon, Endpoint, Ids, Place, Target
from virttools.serve.routes import Routes
from virttools.tree.root import open_root, record_file

_LARGEST_FILE = 16 * 2**20
_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104  routed by local address


@dataclass(slots=True)
class _Drawing:
    """A board while it is drawn."""

    targets: list[Target] = field(default_factory=list)
    daemons: list[Daemon] = field(default_factory=list)
    endpoints: dict[tuple[str, str, int], Endpoint] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, target: Target) -> int:
        self.targets.append(target)
        return len(self.targets) - 1

    def board(self) -> Board:
        return Board(
            tuple(self.targets),
            tuple(self.endpoints.values()),
            tuple(self.notes),
            tuple(self.daemons),
        )


@dataclass(frozen=True, slots=True)
class _Tree:
    """A tree that was opened: what targets need to know of it."""

    place: Place
    fd: int
    passwd: bytes
    group: bytes


# ---- from manifests


def declared(root_path: str, left: Collection[str] = ()) -> Board:
    """The services of every domain's manifest as it was built. left: domains that are not to be served.

    A domain that cannot be served is left out, with a note: the others are no worse for it.
    Raises UnknownDomain, NeedsPrivilege, ConfigError about the root itself.
    """
    drawing = _Drawing()
    found: list[tuple[Service, int, tuple[str, ...]]] = []
    with open_root(root_path) as root:
        for name in root.domains():
            if name in left:
                drawing.notes.append(f"{name} is not served, until `virt serve --reload`")
                continue
            try:
                manifest = _manifest(root.records_fd, name)
                if manifest.services or manifest.daemons:
                    found += _draw(drawing, root_path, name, manifest)
            except (OSError, VirtError) as error:
                drawing.notes.append(f"{name} is not served: {error}")
    _draw_endpoints(drawing, found)
    return drawing.board()


def _manifest(records_fd: int, name: str) -> Manifest:
    """The manifest of a record, of which only the first line is read: entries follow by the thousand."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(record_file(name), flags, dir_fd=records_fd), "rb") as file:
        first = file.readline()
    try:
        layers = json.loads(first.rstrip() + b"]}")["layers"]
        return reload(tuple(Layer(layer["file"], layer["text"]) for layer in layers))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"its record is damaged ({error!r})") from error


def _draw(
    drawing: _Drawing, root_path: str, name: str, manifest: Manifest
) -> list[tuple[Service, int, tuple[str, ...]]]:
    tree_fd = inside.open_tree(root_path, name)
    found = []
    hostname = manifest.etc.hostname or name
    try:
        for daemon in manifest.daemons:
            place = _place(f"{root_path}/{name}", tree_fd, str(daemon.isolation), hostname)
            try:
                drawing.daemons.append(_daemon(_read_tree(place, tree_fd), daemon))
            except VirtError as error:
                drawing.notes.append(f"{daemon.name} of {name} does not run: {error}")
        for service in manifest.services:
            place = _place(f"{root_path}/{name}", tree_fd, str(service.isolation), hostname)
            try:
                target = _target(_read_tree(place, tree_fd), service)
            except VirtError as error:
                drawing.notes.append(f"{service.name} of {name} is not served: {error}")
                continue
            found.append((service, drawing.add(target), service.bind or manifest.addresses))
    finally:
        os.close(tree_fd)
    return found


def target(root_path: str, name: str, manifest: Manifest, service: Service) -> Target:
    """One service of one domain. Raises ConfigError, EnterError."""
    tree_fd = inside.open_tree(root_path, name)
    try:
        hostname = manifest.etc.hostname or name
        place = _place(f"{root_path}/{name}", tree_fd, str(service.isolation), hostname)
        return _target(_read_tree(place, tree_fd), service)
    finally:
        os.close(tree_fd)


def daemon_target(root_path: str, name: str, manifest: Manifest, daemon: model.Daemon) -> Target:
    """A daemon of one domain, as what a trial starts. Raises ConfigError, EnterError."""
    tree_fd = inside.open_tree(root_path, name)
    try:
        hostname = manifest.etc.hostname or name
        place = _place(f"{root_path}/{name}", tree_fd, str(daemon.isolation), hostname)
        one = _daemon(_read_tree(place, tree_fd), daemon)
    finally:
        os.close(tree_fd)
    return Target(
        one.name,
        one.place,
        path=one.path,
        argv=one.argv,
        env=one.env,
        ids=one.ids,
        nice=one.nice,
        rlimits=one.rlimits,
    )


def _place(folder: str, tree_fd: int, isolation: str, hostname: str) -> Place:
    seen = os.fstat(tree_fd)
    return Place(
        folder.rpartition("/")[2],
        folder,
        isolation=isolation,
        hostname=hostname,
        identity=(seen.st_dev, seen.st_ino),
    )


def _read_tree(place: Place, tree_fd: int) -> _Tree:
    passwd = inside.read(tree_fd, "/etc/passwd", _LARGEST_FILE) or b""
    group = inside.read(tree_fd, "/etc/group", _LARGEST_FILE) or b""
    return _Tree(place, tree_fd, passwd, group)


def _target(tree: _Tree, service: Service) -> Target:
    account, ids = _account(tree, service.user, service.groups)
    return Target(
        service.name,
        tree.place,
        path=_program(tree, service.program),
        argv=tuple(os.fsencode(word) for word in (service.program, *service.args)),
        env=environment.build({}, account, []),
        ids=ids,
        limits=admission.declared(service),
        nice=service.nice,
        rlimits=rlimits(service.rlimits),
        timeout=service.timeout or 0,
        every=service.every or 0,
        banner=_banner(tree, service),
        proxies=service.proxy_protocol,
        zygote=_zygote(tree, service) if service.zygote else (),
        log_success=frozenset(service.log_on_success),
        log_failure=frozenset(service.log_on_failure),
    )


def _daemon(tree: _Tree, daemon: model.Daemon) -> Daemon:
    account, ids = _account(tree, daemon.user, daemon.groups)
    return Daemon(
        daemon.name,
        tree.place,
        path=_program(tree, daemon.program),
        argv=tuple(os.fsencode(word) for word in (daemon.program, *daemon.args)),
        env=environment.build({}, account, []),
        ids=ids,
        nice=daemon.nice,
        rlimits=rlimits(daemon.rlimits),
        restart=str(daemon.restart),
        backoff=daemon.backoff,
        stop_signal=int(signal.Signals[daemon.stop_signal]),
        stop_seconds=daemon.stop_timeout,
        ports=daemon.ports,
    )


def rlimits(declared: Sequence[ResourceLimit]) -> tuple[tuple[int, int], ...]:
    """As setrlimit(2) takes them."""
    return tuple(
        (
            getattr(resource, f"RLIMIT_{_RESOURCES.get(one.resource, one.resource).upper()}"),
            resource.RLIM_INFINITY if one.value is None else one.value,
        )
        for one in declared
    )


def _zygote(tree: _Tree, service: Service) -> tuple[bytes, ...]:
    """The Python that the script begins with, as the tree has it. Raises ConfigError."""
    try:
        words = program.interpreter(tree.fd, service.program, environment.PATH)
    except VirtError as error:
        raise ConfigError(f"it can have no zygote: {error}") from error
    if not os.path.basename(words[:1][0] if words else b"").startswith((b"python", b"pypy")):
        raise ConfigError(f"it can have no zygote: {service.program} is no Python script")
    return words


_RESOURCES = {"files": "nofile", "processes": "nproc"}


def _banner(tree: _Tree, service: Service) -> bytes:
    if service.banner is None:
        return b""
    return inside.read(tree.fd, str(service.banner), 4096) or b""


def _program(tree: _Tree, name: str) -> bytes:
    """Where the tree has it; where it lacks it, a client finds nobody and the log says why."""
    try:
        return os.fsencode(program.find(tree.fd, name, environment.PATH))
    except VirtError:
        return os.fsencode(name)


def _account(tree: _Tree, user: str, groups: Sequence[str]) -> tuple[Account, Ids | None]:
    if user == "root":
        account = accounts.root(tree.passwd, tree.group)
        if not groups:
            return account, None
    else:
        found = accounts.find(tree.passwd, tree.group, os.fsencode(user))
        if found is None:
            raise ConfigError(f"its user {user} is not in the tree's /etc/passwd")
        account = found
    extra = [_group(tree, name) for name in groups]
    return account, Ids(account.uid, account.gid, tuple(sorted({*account.groups, *extra})))


def _group(tree: _Tree, name: str) -> int:
    for line in tree.group.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 3 and os.fsencode(name) in (fields[0], fields[2]) and fields[2].isdigit():
            return int(fields[2])
    raise ConfigError(f"its group {name} is not in the tree's /etc/group")


def _draw_endpoints(
    drawing: _Drawing, found: Iterable[tuple[Service, int, tuple[str, ...]]]
) -> None:
    """One socket for all domains of a port, unless every service of it says where it binds.

    One for each address where a daemon answers on the port, too: it could not bind its own.
    """
    listed = [one for one in found if one[0].port is not None]
    wide = {one[0].port for one in listed if not one[0].bind and not one[0].is_waiting}
    wide -= {port for daemon in drawing.daemons for port in daemon.ports}
    for service, position, addresses in listed:
        if not addresses:
            target = drawing.targets[position]
            drawing.notes.append(f"{target.name} is not served: its domain has no address")
        for address in addresses:
            port = service.port or 0
            if service.is_waiting:
                endpoint = Endpoint(service.protocol, address, port, is_wait=True, default=position)
                drawing.endpoints[endpoint.key()] = endpoint
                continue
            host = _ANY[6 if ":" in address else 4] if port in wide else address
            endpoint = Endpoint("tcp", host, port, backlog=service.backlog)
            endpoint = drawing.endpoints.setdefault(endpoint.key(), endpoint)
            endpoint.backlog = max(endpoint.backlog, service.backlog)
            if endpoint.targets.setdefault(address, position) != position:
                other = drawing.targets[endpoint.targets[address]]
                drawing.notes.append(
                    f"{drawing.targets[position].name} is not served on {address}:{port}:"
                    f" {other.name} is"
                )


# ---- from inetd.conf


def inetd(path: str, *, allow_host: bool) -> Board:
    """The services of an inetd.conf; lines that run virtuald are served by their routes directly.

    Raises ConfigError with every wrong line, of it and of the routes it names.
    """
    drawing = _Drawing()
    is_tcpd_asked = inetdconf.has_host_rules()
    for entry in inetdconf.load(path):
        where = f"{entry.file}:{entry.line}"
        if entry.port is None:
            drawing.notes.append(f"{where}: {entry.name} is not served: it needs inetd itself")
        elif entry.is_internal:
            command = internal.command(entry.name)
            _draw_plain(drawing, replace(entry, program=command[0], argv=command))
        elif entry.virtuald is None or entry.is_wait or (entry.is_tcpd and is_tcpd_asked):
            _draw_plain(drawing, entry)
        else:
            _draw_routed(drawing, entry, entry.virtuald, allow_host=allow_host)
    return drawing.board()


def _draw_routed(
    drawing: _Drawing,
    entry: inetdconf.Entry,
    asked: inetdconf.Virtuald,
    *,
    allow_host: bool,
) -> None:
    table = _routes(asked.conf)
    folders: dict[str, int] = {}
    for folder in table.folders():
        try:
            if _is_host(folder) and not allow_host:
                raise ConfigError("it leads to the host itself, and allow_host is not set")
            folders[folder] = drawing.add(_routed(entry, asked, folder))
        except (OSError, VirtError) as error:
            drawing.notes.append(f"{asked.conf}: {folder} is not served: {error}")
    for bind in inetdconf.binds(entry):
        endpoint = Endpoint(
            "tcp",
            bind.address,
            entry.port or 0,
            routes=table,
            folders=folders,
            options=inetdconf.socket_options(entry, bind),
        )
        drawing.endpoints[endpoint.key()] = endpoint


def _routes(conf: str) -> Routes:
    text, seen = conffile.read(conf)
    if seen.st_uid != 0 or seen.st_mode & 0o022:
        raise ConfigError(f"cannot trust {conf}: others may change it")
    return routes.parse(os.fsdecode(text), conf)


def _is_host(folder: str) -> bool:
    """Whether a route leads to the host itself, however it is written. Raises OSError."""
    return os.path.samestat(os.stat(folder), os.stat("/"))


def _routed(entry: inetdconf.Entry, asked: inetdconf.Virtuald, folder: str) -> Target:
    if _is_host(folder):
        return _host_target(entry, asked.argv[0], asked.argv)
    tree_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        parent_fd = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=tree_fd)
        inside.check_owner(parent_fd, os.path.dirname(folder.rstrip("/")) or "/")
        inside.check_owner(tree_fd, folder)
        os.close(parent_fd)
        real = os.path.realpath(folder)
        name = real.rpartition("/")[2]
        isolation = "chroot" if asked.is_chroot else "namespace"
        tree = _read_tree(_place(real, tree_fd, isolation, name), tree_fd)
        account, ids = _account(tree, asked.user or "root", ())
        if entry.user != "root" and asked.user is None:
            account, ids = host_account(entry.user, entry.group, f"{entry.file}:{entry.line}")
        return Target(
            entry.label,
            tree.place,
            path=_program(tree, asked.argv[0]),
            argv=tuple(os.fsencode(word) for word in asked.argv),
            env=environment.build({}, account, []),
            ids=ids,
            limits=admission.of_inetd(entry.max),
            log_success=frozenset(("HOST", "PID", "EXIT", "DURATION") if asked.is_verbose else ()),
        )
    finally:
        os.close(tree_fd)


def _draw_plain(drawing: _Drawing, entry: inetdconf.Entry) -> None:
    position = drawing.add(_host_target(entry, entry.program, entry.argv))
    for bind in inetdconf.binds(entry):
        endpoint = Endpoint(
            entry.protocol[:3],
            bind.address,
            entry.port or 0,
            is_wait=entry.is_wait,
            default=position,
            options=inetdconf.socket_options(entry, bind),
        )
        drawing.endpoints[endpoint.key()] = endpoint


def _host_target(entry: inetdconf.Entry, path: str, argv: Sequence[str]) -> Target:
    account, ids = host_account(entry.user, entry.group, f"{entry.file}:{entry.line}")
    return Target(
        entry.label,
        Place("", "/", isolation="none"),
        path=os.fsencode(path),
        argv=tuple(os.fsencode(word) for word in argv),
        env=environment.build(dict(os.environb), account, []),
        ids=ids,
        limits=admission.of_inetd(entry.max),
    )


def host_account(user: str, group: str | None, where: str) -> tuple[Account, Ids | None]:
    """The user of a line, who is one of the host's. Raises ConfigError."""
    import grp
    import pwd

    try:
        found = pwd.getpwnam(user)
        gid = found.pw_gid if group is None else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ConfigError(f"cannot serve {where}: {error.args[0]}") from error
    groups = os.getgrouplist(found.pw_name, gid)
    account = Account(
        os.fsencode(found.pw_name),
        os.fsencode(found.pw_dir),
        os.fsencode(found.pw_shell),
        uid=found.pw_uid,
        gid=gid,
        groups=groups,
    )
    plain = found.pw_uid == 0 and group is None
    return account, None if plain else Ids(found.pw_uid, gid, tuple(groups))
