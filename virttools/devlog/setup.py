"""Doer: makes the host's own /dev/log the HOWTO's symlink to the shared socket, and takes that back.

What was there keeps its inode under a second name; at every moment /dev/log is the one or the other.
"""

import os
import stat
from contextlib import suppress

from virttools.errors import ApplyError, Busy, DomainExists, NeedsPrivilege

LOG = "/dev/log"
KEPT = "/dev/log.before-virt"
_NEW = "/dev/.log.virt"
_JOURNAL = "/run/systemd/journal/dev-log"


def install(target: str) -> bool:
    """Make /dev/log a symlink to target; whether it was not one yet.

    Raises Busy where systemd-journald owns it, NeedsPrivilege, ApplyError.
    """
    if _target() == target:
        return False
    _refuse_journald()
    try:
        if os.path.lexists(LOG):
            _keep()
        with suppress(FileNotFoundError):  # of a run that crashed
            os.unlink(_NEW)
        os.symlink(target, _NEW)
        os.rename(_NEW, LOG)
    except OSError as error:
        raise _refusal(error) from error
    return True


def undo(target: str) -> bool:
    """Put back what was there before, or nothing; whether there was something to undo.

    Raises DomainExists where /dev/log is something else by now, NeedsPrivilege, ApplyError.
    """
    if _target() != target:
        if not os.path.lexists(KEPT):
            return False
        raise DomainExists(
            f"cannot undo: {LOG} is no link to {target} any more",
            hint=f"somebody made it anew: if that is right, remove {KEPT}",
        )
    try:
        if os.path.lexists(KEPT):
            os.rename(KEPT, LOG)
        else:
            os.unlink(LOG)
    except OSError as error:
        raise _refusal(error) from error
    return True


def _target() -> str | None:
    try:
        return os.readlink(LOG)
    except OSError:
        return None


def _keep() -> None:
    """Give what is at /dev/log a second name; one of an earlier time goes, by rename."""
    if stat.S_ISDIR(os.lstat(LOG).st_mode):
        raise OSError(0, "it is a folder", LOG)
    with suppress(FileNotFoundError):
        os.unlink(_NEW)
    os.link(LOG, _NEW, follow_symlinks=False)
    os.rename(_NEW, KEPT)


def _refuse_journald() -> None:
    link = _target()
    is_journald = os.path.lexists(_JOURNAL) if link is None else _is_journal(link)
    if is_journald:
        raise Busy(
            f"cannot make {LOG} a link: systemd-journald owns it",
            hint='leave it: domains with devlog = "own" and `virt log serve --forward journal` do without it; '
            "else mask systemd-journald-dev-log.socket first",
        )


def _is_journal(link: str) -> bool:
    return os.path.normpath(os.path.join("/dev", link)) == _JOURNAL


def _refusal(error: OSError) -> NeedsPrivilege | ApplyError:
    if isinstance(error, PermissionError):
        return NeedsPrivilege(f"cannot change {LOG}: {error.strerror}", hint="run it as root")
    return ApplyError(f"cannot change {LOG}: {error.strerror}")
