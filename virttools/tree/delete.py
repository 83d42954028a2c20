"""Doer: deletes a folder with all that is in it, however deep: past no mount, through no link."""

import os
import stat
from errno import EBUSY, EISDIR, EPERM, EXDEV

from virttools import linux
from virttools.errors import ApplyError, Busy
from virttools.tree.beneath import Ladder


def delete(dir_fd: int, name: str) -> None:
    """Delete what lies at that name in dir_fd: one descriptor, no recursion.

    Raises Busy where something is mounted in it (that and what is above it stays), ApplyError.
    """
    ladder = Ladder(dir_fd)
    parts: list[str] = []
    try:
        _delete(ladder, name, parts)
    except FileNotFoundError:
        if len(parts) > 1:
            raise
    except OSError as error:
        top = os.readlink(f"/proc/self/fd/{dir_fd}")
        raise _refusal("/".join((top, *parts)), error) from error
    finally:
        ladder.close()


def _delete(ladder: Ladder, name: str, parts: list[str]) -> None:
    """parts: the way from the top to what is being deleted, for messages too."""
    pending = [[name]]
    while True:
        if pending[-1]:
            parts.append(pending[-1].pop())
            if not _is_unlinked(ladder.fd, parts[-1]):
                _descend(ladder, parts[-1])
                pending.append(os.listdir(ladder.fd))
                continue
        else:
            pending.pop()
            if not pending:
                return
            ladder.up()
            os.rmdir(parts[-1], dir_fd=ladder.fd)
        parts.pop()


def _is_unlinked(dir_fd: int, name: str) -> bool:
    """Remove a name that is no folder; False where it is one."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == EISDIR or (error.errno == EPERM and _is_folder(dir_fd, name)):
            return False
        raise
    return True


def _is_folder(dir_fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)


def _descend(ladder: Ladder, name: str) -> None:
    """Enter a folder; one whose owner took his own permission away gets it back first."""
    try:
        ladder.down(name)
    except PermissionError:
        _unbar(ladder.fd, name)
        ladder.down(name)
    if os.fstat(ladder.fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(ladder.fd, stat.S_IRWXU)


def _unbar(dir_fd: int, name: str) -> None:
    resolve = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_XDEV
    fd = linux.openat2(dir_fd, name, os.O_PATH | os.O_DIRECTORY, resolve)
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)
    finally:
        os.close(fd)


def _refusal(where: str, error: OSError) -> Busy | ApplyError:
    shown = where if where.isprintable() else ascii(where)
    if len(shown) > 300:
        shown = f"{shown[:150]} … {shown[-100:]}"
    if error.errno in (EBUSY, EXDEV):
        return Busy(
            f"cannot delete {shown}: something is mounted there",
            hint="unmount it; the next `virt create` or `virt remove` deletes what is left",
        )
    if error.errno == EPERM and os.geteuid() == 0:
        return ApplyError(
            f"cannot delete {shown}: {error.strerror}",
            hint="a flag of lsattr(1) may hold it: `chattr -ia` takes it; the next `virt create` or"
            " `virt remove` deletes what is left",
        )
    return ApplyError(
        f"cannot delete {shown}: {error.strerror}",
        hint="the next `virt create` or `virt remove` tries again",
    )
