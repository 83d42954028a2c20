"""Doer: mends what scrubbing found, in a tree whose owner may have changed it since."""

import os
import stat
from collections.abc import Iterable
from errno import EBUSY, EFBIG

from virttools.errors import ApplyError, Busy
from virttools.scrub import reach
from virttools.scrub.findings import Finding, Mends, by_path, printable
from virttools.scrub.view import LONGEST_TEXT
from virttools.tree.beneath import replace_file
from virttools.tree.delete import delete

_READ = os.O_RDONLY | os.O_NONBLOCK


def mend(tree_fd: int, findings: Iterable[Finding]) -> None:
    """Remove, empty, lock and drop as the findings say; what vanished meanwhile is fine.

    What can't be mended does not keep the rest from it; the first such is raised at the end:
    ApplyError naming the path, Busy where something is mounted on or below it.
    """
    refusals: list[ApplyError | Busy] = []
    for path, mends in sorted(by_path(findings).items()):
        try:
            _mend(tree_fd, path, mends)
        except OSError as error:
            if error.errno not in reach.CHANGED:
                refusals.append(_refusal(path, error))
        except (ApplyError, Busy) as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def _mend(tree_fd: int, path: str, mends: Mends) -> None:
    with reach.parent(tree_fd, path) as (folder_fd, name):
        if mends.removed:
            delete(folder_fd, name)
            return
        found = os.lstat(name, dir_fd=folder_fd)
        if stat.S_ISLNK(found.st_mode):  # planted since; what it points to is not ours to mend
            os.unlink(name, dir_fd=folder_fd)
        elif stat.S_ISREG(found.st_mode):
            _rewrite(folder_fd, name, mends)


def _rewrite(folder_fd: int, name: str, mends: Mends) -> None:
    if mends.emptied and _is_truncated(folder_fd, name):
        return
    with reach.regular(folder_fd, name, _READ) as fd:
        found = os.fstat(fd)
        before = b"" if mends.emptied else _content(fd, found.st_size)
    after = mends.text(before)
    if mends.emptied or after != before:
        mode = stat.S_IMODE(found.st_mode)
        replace_file(folder_fd, name, after, mode, found.st_uid, found.st_gid)


def _is_truncated(folder_fd: int, name: str) -> bool:
    """Empty a file in place, for those who have it open; not one that has another name elsewhere."""
    with reach.regular(folder_fd, name, os.O_WRONLY | os.O_NONBLOCK) as fd:
        if os.fstat(fd).st_nlink > 1:
            return False
        os.ftruncate(fd, 0)
    return True


def _content(fd: int, size: int) -> bytes:
    if size > LONGEST_TEXT:
        raise OSError(EFBIG, f"it is larger than {LONGEST_TEXT >> 20} MiB")
    found = b""
    while block := os.read(fd, 1 << 20):
        found += block
        if len(found) > LONGEST_TEXT:
            raise OSError(EFBIG, f"it is larger than {LONGEST_TEXT >> 20} MiB")
    return found


def _refusal(path: str, error: OSError) -> ApplyError | Busy:
    shown = f"/{printable(path)}"
    if error.errno == EBUSY:
        return Busy(
            f"cannot scrub {shown}: something is mounted there", hint="unmount it, and try again"
        )
    return ApplyError(f"cannot scrub {shown}: {error.strerror}")
