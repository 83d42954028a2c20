"""Values: checks of what everything stands on: kernel, the root's file system, leftovers, links."""

import shlex
from collections.abc import Iterator

from virttools.doctor import mending
from virttools.doctor.facts import Machine
from virttools.doctor.finding import Fault


def kernel(machine: Machine) -> Iterator[Fault]:
    for lack in machine.lacks:
        if lack.is_needed:
            yield Fault(lack.what, lack.cause, lack.mend)


def user_namespaces(machine: Machine) -> Iterator[Fault]:
    for lack in machine.lacks:
        if not lack.is_needed:
            yield Fault(lack.what, lack.cause, lack.mend)


_HARM = {
    "nosuid": ("suid", "programs such as passwd and su act for nobody but root"),
    "nodev": ("dev", "/dev/null and its like cannot be opened"),
    "noexec": ("exec", "no program can be run"),
}


def mount(machine: Machine) -> Iterator[Fault]:
    if machine.mount is None:
        return
    point, harms = machine.mount
    if not harms:
        return
    told = "; ".join(f"{harm}: {_HARM[harm][1]}" for harm in harms)
    options = ",".join(_HARM[harm][0] for harm in harms)
    yield Fault(
        f"{machine.root} lies on a file system that is mounted {', '.join(harms)}",
        f"in all trees there, {told}; /etc/fstab says how {point} is mounted next time",
        f"mount -o remount,bind,{options} {shlex.quote(point)}",
    )


def staging(machine: Machine) -> Iterator[Fault]:
    for name in machine.leftovers:
        path = f"{machine.root}/.virt/staging/{name}"
        yield Fault(
            f"{path} is left over",
            "a build or a removal was killed, or lost its power; the next build clears it away too",
            f"find {mending.quoted(path)} -xdev -delete",
        )


def root(machine: Machine) -> Iterator[Fault]:
    if machine.refused is not None:
        yield Fault(f"{machine.root} cannot be used", machine.refused.message, machine.refused.hint)


def damaged(machine: Machine) -> Iterator[Fault]:
    for one in machine.damaged:
        yield Fault("its record cannot be read", one.message, one.hint, one.name)


def records(machine: Machine) -> Iterator[Fault]:
    for name, file in machine.unrecorded:
        yield Fault(
            f"{name} has a record and no tree",
            f"{machine.root}/{name} went by other means than `virt remove`, or a crash met its removal;"
            " the next build forgets it",
            f"rm {mending.quoted(f'{machine.root}/.virt/records/{file}')}",
        )


def links(machine: Machine) -> Iterator[Fault]:
    for link in machine.links:
        folder, _, _ = link.path.rpartition("/")
        path = mending.quoted(link.path)
        yield Fault(
            f"{link.path} leads nowhere",
            f"it is a link to {link.target}, which is not there: virt was moved or removed",
            f"rm {path} && {machine.virt} link --bindir {mending.quoted(folder)} {mending.quoted(link.word)}",
        )
