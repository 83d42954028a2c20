"""Doer: what running in a tree as an ordinary user needs beside a user namespace, and what it cannot have."""

import os
import stat

from virttools import linux
from virttools.enter import inside, program, userns
from virttools.enter.entrance import Cell, Entrance
from virttools.errors import EnterError, NeedsPrivilege
from virttools.tree import ids

_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")


def begin(root: str) -> None:
    """Be root of a user and a mount namespace, where the folder root is our own and safe.

    Raises NeedsPrivilege where others could change it, EnterError where it is not there, HostLacks.
    """
    from virttools.tree.ground import open_checked

    try:
        fd = open_checked(root, make=False)
        owner = os.fstat(fd).st_uid
        os.close(fd)
    except OSError as error:
        raise EnterError(
            f"cannot open {root}: {error.strerror}",
            hint="--root or VIRT_ROOT names the folder of the trees; `virt create` makes it",
        ) from error
    if owner != os.geteuid():
        raise NeedsPrivilege(
            f"cannot enter a domain of {root}: that is not yours",
            hint="use sudo, or become root; a domain of your own: virt create DOMAIN",
        )
    userns.enter(mounts=True)


def restrict(entrance: Entrance) -> None:
    """Have no more asked of the kernel than the namespace has ids for. Raises EnterError."""
    account = entrance.account
    assert account is not None, "whoever runs a command is somebody"
    can = ids.here()
    # Where a group was mapped without help, setgroups(2) is denied for good.
    entrance.may_set_groups = not can.has_one_group()
    wanted = account.groups if entrance.may_set_groups else [account.gid]
    if can.has_uid(account.uid) and all(map(can.has_gid, wanted)):
        return
    name = program.shown(os.fsdecode(account.name))
    mapping = userns.found()
    why = f" ({mapping.fault})" if mapping and mapping.fault else ""
    raise EnterError(
        f"cannot become {name} ({account.uid}:{account.gid}): the user namespace has no such id{why}",
        hint="root gives you a range: usermod --add-subuids 100000-165535 "
        "--add-subgids 100000-165535 YOU; the package uidmap maps it",
    )


def furnish(cell: Cell, tree_fd: int) -> None:
    """Have the host's devices where files stand in for them, and go on where there can be no /proc."""
    cell.may_lack_proc = True
    for name in _DEVICES:
        found = inside.status(tree_fd, f"/dev/{name}")
        if found is None or not stat.S_ISREG(found.st_mode):
            continue
        if stat.S_IMODE(found.st_mode) == ids.STAND_IN and os.path.exists(f"/dev/{name}"):
            mount_fd = linux.clone_mount(-1, b"/dev/" + name.encode())
            cell.binds.append((mount_fd, b"dev/" + name.encode()))


def tty_group(wanted: int) -> int:
    """The group of a terminal: the wanted one, where there is such a group in the namespace."""
    return ids.here().held(0, wanted)[1]
