"""Values: checks of who lives in a tree: users, homes, and numbers that domains share."""

from collections.abc import Iterator, Sequence

from virttools.doctor import mending
from virttools.doctor.facts import Machine, Resident, Tree
from virttools.doctor.finding import Fault
from virttools.manifest.model import Daemon, Service
from virttools.tree import ranges
from virttools.tree.accounts import FIRST, number
from virttools.tree.ranges import SPAN

_NOBODY = 65534


def is_human(uid: int, uid_base: int) -> bool:
    return FIRST <= uid - uid_base < _NOBODY


def homes(machine: Machine, tree: Tree) -> Iterator[Fault]:
    """The translator's third note: `No directory! Logging in with home=/`."""
    for one in tree.people or ():
        has_shell = not one.shell.endswith(("/nologin", "/false"))
        if is_human(one.uid, tree.uid_base) and has_shell and not one.has_home:
            yield Fault(
                f"{one.name} has no home directory {one.home}",
                "it was never made, or removed: who logs in by FTP lands in / and is told `No directory!`",
                mending.home(machine.virt, tree.domain, one.home, one.uid, one.gid),
            )


def service_users(machine: Machine, tree: Tree) -> Iterator[Fault]:
    if tree.people is None:
        return
    known = {one.name for one in tree.people} | {"root"}
    told: set[str] = set()
    running: tuple[Service | Daemon, ...] = (*tree.manifest.services, *tree.manifest.daemons)
    for one in running:
        if one.user not in known | told:
            told.add(one.user)
            yield Fault(
                f"{one.name} runs as {one.user}, and there is no such user inside",
                f"{one.origin} names a user that /etc/passwd of the tree has no line of",
                _added(machine, tree, one.user),
            )


def _added(machine: Machine, tree: Tree, name: str) -> str:
    """The line that the manifest says; of a user whom it does not declare, one with a free number."""
    declared = [one for one in number(tree.manifest).users if one.name == name]
    taken = {one.uid for one in tree.people or ()} | {gid for _, gid in tree.groups}
    free = next(n for n in range(tree.uid_base + 100, tree.uid_base + SPAN) if n not in taken)
    uid, gid = (declared[0].uid, declared[0].gid) if declared else (free, free)
    home, shell = (declared[0].home, declared[0].shell) if declared else ("/", "/usr/sbin/nologin")
    gid = dict(tree.groups).get(name, gid)
    lines = (f"{name}:x:{uid}:{gid}::{home}:{shell}", f"{name}:x:{gid}:")
    add_group = "" if name in dict(tree.groups) else ' && echo "$2" >>/etc/group'
    script = f'echo "$1" >>/etc/passwd{add_group}'
    return mending.inside(machine.virt, tree.domain, "sh", "-c", script, "sh", *lines)


def no_passwd(machine: Machine, tree: Tree) -> Iterator[Fault]:
    is_built = any(entry.path == "/etc/passwd" for entry in tree.entries)
    if tree.people is None and is_built:
        line = "root:x:0:0:root:/root:/bin/sh"
        script = 'echo "$1" >/etc/passwd && chmod 0644 /etc/passwd'
        yield Fault(
            "/etc/passwd of the tree is not there, or no plain file",
            "without it nobody has a name inside; a backup of the domain has the true one",
            mending.inside(
                machine.virt, tree.domain, "sh", "-c", f"rm -f /etc/passwd && {script}", "sh", line
            ),
        )


def shared_ids(machine: Machine, residents: Sequence[Resident]) -> Iterator[Fault]:
    """One finding for each domain that has the uid of a user of a domain before it."""
    holders: dict[int, tuple[str, str]] = {}
    for one in residents:
        clashes = [(uid, name) for uid, name in one.users if uid in holders]
        for uid, name in one.users:
            holders.setdefault(uid, (one.domain, name))
        if not clashes:
            continue
        uid, name = clashes[0]
        other, theirs = holders[uid]
        more = f", and {len(clashes) - 1} more" if len(clashes) > 1 else ""
        yield Fault(
            f"{name} has the uid {uid}, which is {theirs} of {other}{more}",
            "to the kernel they are one: quotas, limits and, outside a container, signals and"
            f" /proc go by uid. A range of its own needs a new {one.domain}; its data is kept, see `remove` in virt(1)",
            mending.again(machine.virt, one.domain, one.layers, uid_base="auto"),
            one.domain,
        )


def outsiders(machine: Machine, tree: Tree) -> Iterator[Fault]:
    """Another root on this machine cannot be known, nor accounts that only NSS tells of: what runs can be seen."""
    if tree.outsiders and machine.free_base is not None:
        more = f", and {len(tree.outsiders) - 1} more" if len(tree.outsiders) > 1 else ""
        yield Fault(
            f"{tree.outsiders[0]} has ids of {tree.domain} and runs outside of it{more}",
            "an account that /etc/passwd does not have, or a domain of another root (VIRT_ROOT): to the"
            f" kernel it is the domain's user. A range of its own needs a new {tree.domain}; its data"
            " is kept, see `remove` in virt(1)",
            mending.again(machine.virt, tree.domain, tree.layers, uid_base=str(machine.free_base)),
        )


def host_ids(machine: Machine, tree: Tree) -> Iterator[Fault]:
    """useradd(8) gives ranges of subuid(5) away without asking whose ids they are."""
    said = ranges.told(tree.domain, tree.uid_base, machine.held)
    if said:
        yield Fault(
            said,
            "who may use these ids outside, or in a user namespace, is the domain's users to the"
            f" kernel. A range of its own needs a new {tree.domain}; its data is kept, see `remove` in virt(1)",
            mending.again(machine.virt, tree.domain, tree.layers, uid_base="auto"),
        )
