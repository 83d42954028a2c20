"""Values: checks of the way from an address to a tree: interfaces, routes files, inetd.conf."""

from collections.abc import Iterator

from virttools.doctor import mending
from virttools.doctor.facts import InetdLine, Machine, RoutesFile, Tree
from virttools.doctor.finding import Fault

_RELOAD = "inetd reads it again when it gets a HUP"


def addresses(machine: Machine, tree: Tree) -> Iterator[Fault]:
    bound = {address for service in tree.manifest.services for address in service.bind}
    for address in sorted({*tree.addresses, *bound}):
        if address in machine.absent:
            interface = mending.quoted(machine.interface)
            by_hand = f"ip address add {address}/{128 if ':' in address else 32} dev {interface}"
            yield Fault(
                f"no interface has the address {address}",
                "nobody can reach the domain there: its alias was never added, or went at a reboot"
                " (virtuald then says that getsockname failed, or has no route)",
                f"{machine.virt} ip sync --interface {interface}"
                if address in tree.addresses
                else by_hand,
            )


def hosts(machine: Machine, tree: Tree) -> Iterator[Fault]:
    for one in machine.hosts:
        if tree.domain in one.names and tree.addresses and one.address not in tree.addresses:
            yield Fault(
                f"/etc/hosts says {one.address} of {tree.domain}, which has {', '.join(tree.addresses)}",
                "this machine looks there before it asks DNS: mail and the like go astray",
                mending.line(one.line, "s/^/#/", "/etc/hosts"),
            )


def services(machine: Machine, tree: Tree) -> Iterator[Fault]:
    for service in tree.manifest.services:
        if service.port is not None and not (service.bind or tree.addresses):
            yield Fault(
                f"the service {service.name} is served to nobody",
                f"{service.origin} declares it, and the domain has no address",
                mending.again(machine.virt, tree.domain, tree.layers, " --ip ADDRESS"),
            )


def unreadable(machine: Machine) -> Iterator[Fault]:
    for file in machine.routes:
        if file.fault is not None:
            yield from _absent(machine, file)
        for problem in file.problems:
            mend = mending.line(problem.line, "s/^/#/", file.path)
            yield Fault(
                f"{file.path} cannot be read: line {problem.line} is wrong",
                f"{problem.message}; virtuald refuses every connection of that file",
                f"{machine.virt} services sync" if file.is_ours else mend,
            )


def _absent(machine: Machine, file: RoutesFile) -> Iterator[Fault]:
    """The translator's second note: a conf file that inetd.conf names and nobody wrote."""
    inetd = machine.inetd
    is_due = file.path in {f"{machine.root}/{name}" for name in machine.unsynced}
    for one in inetd.lines if inetd is not None else ():
        if inetd is not None and one.conf == file.path:
            outs = mending.line(one.line, "s/^/#/", inetd.path)
            yield Fault(
                f"{one.label} of {inetd.path}, line {one.line}, has no routes file {file.path}",
                f"{file.fault}: virtuald closes every connection of that service",
                f"{machine.virt} services sync" if is_due else outs,
            )


def trust(machine: Machine) -> Iterator[Fault]:
    for file in machine.routes:
        if file.trust is not None:
            path = mending.quoted(file.path)
            yield Fault(
                f"{file.path} may be changed by others than root",
                f"{file.trust}; virtuald refuses it",
                f"chown root {path} && chmod go-w {path}",
            )


def missing_trees(machine: Machine) -> Iterator[Fault]:
    for file in machine.routes:
        for route in file.routes.routes if file.routes is not None else ():
            if route.folder in file.faults:
                yield Fault(
                    f"{file.path}, line {route.line}, leads to {route.folder}, which cannot be served",
                    file.faults[route.folder],
                    _without(machine, file, route.line),
                )


def hidden(machine: Machine) -> Iterator[Fault]:
    for file in machine.routes:
        for problem in file.routes.hidden() if file.routes is not None else ():
            yield Fault(
                f"{file.path}, line {problem.line}, is {problem.message}",
                "of two routes that claim an address the first one counts",
                _without(machine, file, problem.line),
            )


def strangers(machine: Machine) -> Iterator[Fault]:
    """Routes that give one domain's address to another."""
    for file in machine.routes:
        for route in file.routes.routes if file.routes is not None else ():
            owner = machine.owners.get(route.packed.hex())
            folder = f"{machine.root}/{owner}"
            is_network = route.is_network or owner is None
            if not is_network and route.folder.rstrip("/") != folder:
                yield Fault(
                    f"{file.path}, line {route.line}, gives an address of {owner} to {route.folder}",
                    f"{owner} was made with that address: two claim it, and each service may pick another",
                    _without(machine, file, route.line),
                    owner,
                )


def unsynced(machine: Machine) -> Iterator[Fault]:
    named = {file.path for file in machine.routes if file.fault is not None}
    names = [name for name in machine.unsynced if f"{machine.root}/{name}" not in named]
    if names:
        yield Fault(
            f"{', '.join(names)} in {machine.root} do not say what the domains declare",
            "domains were made, removed or changed since; only virtuald reads them, not `virt serve`",
            f"{machine.virt} services sync",
        )


def _without(machine: Machine, file: RoutesFile, number: int) -> str:
    return (
        f"{machine.virt} services sync"
        if file.is_ours
        else mending.line(number, "s/^/#/", file.path)
    )


def inetd_lines(machine: Machine) -> Iterator[Fault]:
    inetd = machine.inetd
    for problem in inetd.problems if inetd is not None else ():
        yield Fault(
            f"{problem.file}, line {problem.line}, is not what it seems",
            f"{problem.message}; inetd would skip or guess; {_RELOAD}",
            mending.line(problem.line, "s/^/#/", problem.file),
        )


def inetd_limit(machine: Machine) -> Iterator[Fault]:
    for path, one in _lines(machine):
        if not one.is_wait and not one.is_limited:
            yield Fault(
                f"{one.label} stops for ten minutes after 256 connections in one",
                f"{path}, line {one.line}, sets no limit of its own, and all domains share the line;"
                f" {_RELOAD}",
                mending.line(one.line, r"s/\<nowait\>\(\.256\)\?/nowait.10000/", path),
            )


def inetd_wait(machine: Machine) -> Iterator[Fault]:
    """What the translator met as `getsockname failed`: no connection, and so no local address."""
    for path, one in _lines(machine):
        if one.is_listener:
            yield Fault(
                f"{one.label} hands virtuald a socket without an address",
                f"{path}, line {one.line}, says `wait`: virtuald is given the socket that listens, not"
                f" a connection, and getsockname(2) tells no domain; {_RELOAD}",
                mending.line(one.line, r"s/\<wait\>/nowait.10000/", path),
            )


def _lines(machine: Machine) -> Iterator[tuple[str, InetdLine]]:
    if machine.inetd is not None:
        for one in machine.inetd.lines:
            yield machine.inetd.path, one
