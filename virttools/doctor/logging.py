"""Values: checks of dev/log: whether what is said inside is heard."""

from collections.abc import Iterator, Sequence

from virttools.devlog import places
from virttools.devlog.freshness import State
from virttools.doctor import mending
from virttools.doctor.facts import Machine, Resident, Tree
from virttools.doctor.finding import Fault
from virttools.manifest.model import DevLog

_WHY = {
    State.STALE: "the log daemon was started again and bound another socket since",
    State.MISSING: "nobody linked it, or somebody inside removed it",
    State.APART: "no hard link leads from one file system to another",
    State.REPLACED: "somebody inside put something else there",
    State.UNHEARD: "no log daemon has the socket bound",
}


def link(machine: Machine, tree: Tree) -> Iterator[Fault]:
    if tree.log is State.FRESH or is_unheard(tree):
        return
    bind = " --bind" if tree.log is State.APART else ""
    mend = f"{machine.virt} log relink{bind} {tree.domain}"
    if tree.log is State.UNHEARD:
        mend = f"syslogd -p {mending.quoted(f'{machine.root}/{places.SHARED}')}"
    yield Fault(
        f"/dev/log is {tree.log}: what is logged inside is lost",
        tree.log_cause or _WHY[tree.log],
        mend,
    )


def is_unheard(tree: Tree) -> bool:
    """Whether only the server of the domains' own sockets is missing."""
    return tree.log is State.UNHEARD and tree.devlog is DevLog.OWN


def server(machine: Machine, residents: Sequence[Resident]) -> Iterator[Fault]:
    some = [one.domain for one in residents if one.is_unheard]
    if some:
        count = "one domain logs" if len(some) == 1 else f"{len(some)} domains log"
        yield Fault(
            f"nobody listens where {count}: {', '.join(some[:3])}",
            "no `virt log serve` runs for this root; it is to run always, by systemd or init",
            f"{machine.virt} log serve",
        )


def serving(machine: Machine, residents: Sequence[Resident]) -> Iterator[Fault]:
    """Inetd may answer for services, by virtuald; daemons are kept by `virt serve` or by systemd."""
    is_routed = machine.inetd is not None and bool(machine.inetd.lines)
    named = {one.domain: (*(() if is_routed else one.serves), *one.daemons) for one in residents}
    idle = {domain: names for domain, names in named.items() if names}
    if idle and not machine.has_server:
        domain, names = next(iter(idle.items()))
        others = f", and for {len(idle) - 1} more domains" if len(idle) > 1 else ""
        yield Fault(
            f"nobody may answer for {domain}'s {', '.join(names)}{others}",
            "services or daemons are declared, and no `virt serve` runs; units that `virt render systemd`"
            " wrote may do it",
            f"{machine.virt} serve",
        )
