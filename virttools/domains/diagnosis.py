"""What is wrong here: looks at the machine and every domain, has the checks judge, changes nothing."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from virttools.devlog import staleness
from virttools.doctor import checks, examine_host, examine_tree
from virttools.doctor.examine_tree import Libraries
from virttools.doctor.facts import (
    BrokenLink,
    Inetd,
    Lack,
    Machine,
    Refused,
    Resident,
    RoutesFile,
    Status,
    Tree,
    Walked,
)
from virttools.doctor.finding import Finding
from virttools.domains import devlogs, services
from virttools.enter import userns
from virttools.enter.links import Bin
from virttools.errors import ConfigError, HostLacks, NeedsPrivilege, UnknownDomain, VirtError
from virttools.host import idranges, surroundings
from virttools.host.sysroot import Sysroot
from virttools.manifest.load import reload
from virttools.serve import places, routes
from virttools.serve.routes import Routes
from virttools.tree import ground, processes, ranges, users
from virttools.tree.record import Head, Record
from virttools.tree.root import Root, open_root, record_file

Advance = Callable[[int, int], None]
Inodes = frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look. virt: how to call this `virt` for this root; program: its file; bindir: of links."""

    root: str
    virt: str
    program: str
    bindir: str
    inetd: str


@dataclass(frozen=True, slots=True)
class _Around:
    """What the examinations of all trees share."""

    root: Root
    machine: Machine
    bound: Inodes
    stored: Inodes
    libraries: Libraries


def diagnose(
    place: Place, names: Sequence[str], advance: Advance = lambda _more, _total: None
) -> tuple[Finding, ...]:
    """Everything that is wrong with the machine and its domains; names: only what is with these.

    Raises UnknownDomain, NeedsPrivilege where this user may not look.
    """
    machine = _machine(place)
    try:
        root = open_root(place.root)
    except UnknownDomain:
        if names:
            raise
        return tuple(checks.of_machine(machine))
    except (NeedsPrivilege, ConfigError) as error:
        if os.geteuid() != 0 or names:
            raise
        refused = Refused("", error.message, error.hint or "")
        return tuple(checks.of_machine(replace(machine, refused=refused)))
    with root:
        for name in names:
            root.require(name, "examine")
        return _all(root, machine, names, advance)


def _all(
    root: Root, machine: Machine, names: Sequence[str], advance: Advance
) -> tuple[Finding, ...]:
    heads, damaged = _heads(root)
    machine = _with_root(replace(machine, damaged=damaged), root, heads)
    try:
        userns.enter()
    except HostLacks as error:
        lack = Lack(error.message, "no tree could be looked at", error.hint or "", is_needed=True)
        return tuple(checks.of_machine(replace(machine, lacks=(*machine.lacks, lack))))
    around = _Around(
        root,
        machine,
        staleness.bound_inodes(),
        examine_tree.stored(root.store_fd),
        Libraries(Sysroot("/")),
    )
    found: list[Finding] = [] if names else list(checks.of_machine(machine))
    residents: list[Resident] = []
    for head in heads:
        is_asked = not names or head.domain in names
        tree = _tree(around, head) if is_asked else _acquaintance(root, head)
        if tree is not None:
            found += checks.of_tree(machine, tree) if is_asked else ()
            residents.append(checks.resident(tree))
        advance(1, len(heads))
    together = checks.of_all(machine, residents)
    found += [one for one in together if not names or one.domain in names]
    return tuple(found)


def _heads(root: Root) -> tuple[tuple[Head, ...], tuple[Refused, ...]]:
    heads, damaged = [], []
    for name in root.domains():
        try:
            heads.append(root.head(name))
            reload(root.read_layers(name))
        except VirtError as error:
            heads = [head for head in heads if head.domain != name]
            damaged.append(Refused(name, error.message, error.hint or ""))
    return tuple(heads), tuple(damaged)


def _machine(place: Place) -> Machine:
    sysroot = Sysroot("/")
    return Machine(
        virt=place.virt,
        root=place.root,
        lacks=tuple(examine_host.lacks()),
        links=_links(place),
        inetd=examine_host.inetd(place.inetd, sysroot),
        interface=examine_host.interface(),
        resolvers=surroundings.name_service(sysroot).nameservers,
        hosts=tuple(examine_host.hosts(sysroot)),
        held=idranges.read(sysroot).held if os.geteuid() == 0 else (),
        running=examine_host.running() if os.geteuid() == 0 else {},
    )


def _links(place: Place) -> tuple[BrokenLink, ...]:
    try:
        with Bin(place.bindir, place.program) as folder:
            found = [one for one in folder.links() if one.state == "broken"]
    except VirtError:
        return ()
    return tuple(
        BrokenLink(
            f"{place.bindir}/virt{one.name}",
            one.target,
            one.name if one.program == one.name else f"{one.name}={one.program}",
        )
        for one in found
    )


def _with_root(machine: Machine, root: Root, heads: Sequence[Head]) -> Machine:
    """What can only be known of a root that is there."""
    server = staleness.node(root.fd, places.SOCKET)
    bound = staleness.bound_inodes()
    owners = {
        packed.hex(): head.domain
        for head in heads
        for address in head.addresses
        if (packed := routes.pack(address)) is not None
    }
    return replace(
        machine,
        mount=examine_host.mount(root.fd, root.path) if os.geteuid() == 0 else None,
        is_open=bool(os.fstat(root.fd).st_mode & 0o001),
        leftovers=examine_host.leftovers(root.staging_fd),
        unrecorded=tuple(
            (name, record_file(name)) for name in sorted(root.recorded()) if not root.has_tree(name)
        ),
        routes=_routes(machine.inetd, root),
        unsynced=_due(machine.inetd, root),
        owners=owners,
        absent=examine_host.absent(_addresses(root, heads)),
        has_server=server is not None and (server.device, server.inode) in bound,
        free_base=_free_base(machine, heads),
    )


def _free_base(machine: Machine, heads: Sequence[Head]) -> int | None:
    own = [ranges.of(head.uid_base) for head in heads if head.uid_base]
    held = [one.ids for one in machine.held]
    busy = [range(uid, uid + 1) for uids in machine.running.values() for uid in uids]
    return ranges.pick([*own, *held, *busy])


def _outsiders(machine: Machine, base: int, tree_fd: int) -> tuple[str, ...]:
    if not base:
        return ()
    own = ranges.of(base)
    found = (pid for pid, uids in machine.running.items() if any(uid in own for uid in uids))
    return tuple(
        users.told(pid)
        for pid in found
        if not users.is_in(pid, tree_fd) and any(uid in own for uid in processes.uids(pid))
    )


def _addresses(root: Root, heads: Sequence[Head]) -> set[str]:
    declared = {address for head in heads for address in head.addresses}
    for head in heads:
        manifest = reload(root.read_layers(head.domain))
        declared.update(address for service in manifest.services for address in service.bind)
    return declared


def _due(inetd: Inetd | None, root: Root) -> tuple[str, ...]:
    """Routes files are virtuald's alone: where nothing runs it, none is missed."""
    is_used = inetd is not None and bool(inetd.lines)
    try:
        due = services.due(root)
    except VirtError:
        return ()
    return tuple(name for name in due if is_used or root.look(name) is not None)


def _routes(inetd: Inetd | None, root: Root) -> tuple[RoutesFile, ...]:
    """The routes files in the root, and those that inetd.conf names."""
    there = {f"{root.path}/{name}" for name in os.listdir(root.fd) if name.startswith("conf.")}
    named = {one.conf for one in inetd.lines} if inetd is not None else set()
    return tuple(_routes_file(path) for path in sorted(there | named))


def _routes_file(path: str) -> RoutesFile:
    sysroot = Sysroot("/")
    walked = sysroot.walk(path)
    text = sysroot.read(walked.path) if walked.stat is not None else None
    if text is None or walked.stat is None:
        return RoutesFile(path=path, fault=walked.fault or "it is no file that can be read")
    is_ours = services.is_ours(text.decode(errors="replace"))
    found = walked.stat
    mode = found.st_mode & 0o7777
    is_trusted = found.st_uid == 0 and not mode & 0o022
    trust = None if is_trusted else f"it belongs to user {found.st_uid} and has mode {mode:04o}"
    try:
        read = routes.parse(os.fsdecode(text), path)
    except ConfigError as error:
        return RoutesFile(path=path, is_ours=is_ours, trust=trust, problems=error.problems)
    return RoutesFile(path=path, is_ours=is_ours, routes=read, trust=trust, faults=_faults(read))


def _faults(read: Routes) -> dict[str, str]:
    """Why a folder cannot be served, as virtuald would find it."""
    found = {}
    for folder in read.folders():
        try:
            os.close(ground.open_checked(folder, make=False))
        except VirtError as error:
            found[folder] = error.message
        except OSError as error:
            found[folder] = (error.strerror or str(error)).lower()
    return found


def _tree(around: _Around, head: Head) -> Tree | None:
    """None where it was removed meanwhile."""
    try:
        return _examined(around, head)
    except UnknownDomain:
        return None
    except (OSError, VirtError) as error:
        # Who moves folders while we walk gets a finding, and the others theirs.
        path = f"{around.root.path}/{head.domain}"
        top = Status("directory", 0o755, 0, 0)
        return Tree(domain=head.domain, path=path, fault=str(error), walked=Walked(top=top))


def _examined(around: _Around, head: Head) -> Tree:
    root, record = around.root, around.root.read_record(head.domain)
    path = f"{root.path}/{head.domain}"
    log = devlogs.look(root, head, around.bound)
    with root.open_tree(head.domain) as tree_fd:
        mounts = tuple(p for p in users.mount_points() if users.is_within(p, path))
        paths = (entry.path for entry in record.entries)
        walked = examine_tree.walk(tree_fd, paths, around.stored)
        covered = tuple(point[len(path) :] for point in mounts if point != path)
        return Tree(
            domain=head.domain,
            path=path,
            layers=record.layers,
            manifest=reload(record.layers),
            addresses=head.addresses,
            uid_base=head.uid_base,
            entries=record.entries,
            devlog=head.devlog,
            log=log.state,
            log_cause=log.cause,
            walked=replace(walked, covered=covered),
            mounts=mounts,
            is_apart=os.fstat(tree_fd).st_dev != os.fstat(root.fd).st_dev,
            people=examine_tree.people(tree_fd),
            groups=examine_tree.groups(tree_fd),
            resolvers=examine_tree.resolvers(tree_fd),
            has_pam=_has_pam(record),
            has_pam_other=_has_pam_other(tree_fd),
            has_submit_cf=examine_tree.is_there(tree_fd, "/etc/mail/submit.cf"),
            old=around.libraries.old(record.entries),
            outsiders=_outsiders(around.machine, head.uid_base, tree_fd),
        )


def _has_pam(record: Record) -> bool:
    return any(entry.path.rpartition("/")[2].startswith("libpam.so") for entry in record.entries)


def _has_pam_other(tree_fd: int) -> bool:
    folders = ("/etc/pam.d", "/usr/lib/pam.d")
    return any(examine_tree.is_there(tree_fd, f"{folder}/other") for folder in folders)


def _acquaintance(root: Root, head: Head) -> Tree | None:
    """A domain that was not asked for: only what the others may clash with."""
    try:
        with root.open_tree(head.domain) as tree_fd:
            people = examine_tree.people(tree_fd)
    except (OSError, UnknownDomain):
        return None
    top = Status("directory", 0o755, 0, 0)
    path = f"{root.path}/{head.domain}"
    return Tree(
        domain=head.domain,
        path=path,
        uid_base=head.uid_base,
        walked=Walked(top=top),
        people=people,
    )
