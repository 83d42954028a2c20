"""Doer: makes a tree's dev/log a second name of the socket that it should be, by one rename.

Below the tree everything goes by descriptor: what its owner planted there is met, never followed.
"""

import os
from contextlib import suppress
from errno import EEXIST, EISDIR, ENOTEMPTY, EXDEV

from virttools.devlog import mounting, places
from virttools.devlog.staleness import folder_fault, node, source_of
from virttools.errors import ApplyError, HostLacks
from virttools.manifest.model import DevLog
from virttools.tree.beneath import open_beneath
from virttools.tree.record import Head
from virttools.tree.root import Root


def relink(root: Root, head: Head, *, bind: bool = False) -> bool:
    """Whether dev/log had to be linked anew; it is the right socket now.

    bind: mount the socket there where it cannot be linked, since the tree lies on another file system.
    Raises HostLacks where there is no socket, or not on this file system; ApplyError naming what
    the tree has instead of a folder; UnknownDomain, Busy.
    """
    source = source_of(head)
    with root.open_tree(head.domain) as tree_fd:
        _require(root, head, source)
        dev_fd = _open_dev(tree_fd, head.domain)
        try:
            # Asked before locking: whoever holds a domain that is as it should be is not disturbed.
            if _is_linked(root, source, dev_fd):
                return False
            with root.lock(head.domain, shared=True):
                return _link(root, source, dev_fd)
        except OSError as error:
            if bind and error.errno == EXDEV:
                return mounting.mount(root, source, dev_fd, head.domain)
            raise _refusal(root, head.domain, source, error) from error
        finally:
            os.close(dev_fd)


def _is_linked(root: Root, source: str, dev_fd: int) -> bool:
    there, wanted = node(dev_fd, places.NAME), node(root.fd, source)
    return there is not None and wanted is not None and there.is_same(wanted)


def _require(root: Root, head: Head, source: str) -> None:
    found = node(root.fd, source)
    if found is not None and found.is_socket:
        return
    cause = "there is no socket" if found is None else "that is no socket"
    hint = (
        f"have the log daemon listen there: syslogd -p {root.path}/{source}"
        if head.devlog is DevLog.SHARED
        else "`virt log serve` binds it"
    )
    raise HostLacks(
        f"cannot relink /dev/log of {head.domain} to {root.path}/{source}: {cause}", hint=hint
    )


def _open_dev(tree_fd: int, domain: str) -> int:
    try:
        return open_beneath(tree_fd, places.DEV, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        cause = folder_fault(error) or "it has no folder /dev"
        raise ApplyError(
            f"cannot relink /dev/log of {domain}: {cause}",
            hint="nothing was touched; put a folder there, then relink",
        ) from error


def _link(root: Root, source: str, dev_fd: int) -> bool:
    temporary = f".log.{os.urandom(8).hex()}"
    os.link(source, temporary, src_dir_fd=root.fd, dst_dir_fd=dev_fd, follow_symlinks=False)
    try:
        os.rename(temporary, places.NAME, src_dir_fd=dev_fd, dst_dir_fd=dev_fd)
    finally:
        # rename(2) leaves both names where they are one inode already: somebody was quicker.
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=dev_fd)
    return True


def _refusal(root: Root, domain: str, source: str, error: OSError) -> ApplyError | HostLacks:
    what = f"cannot relink /dev/log of {domain} to {root.path}/{source}"
    if error.errno == EXDEV:
        return HostLacks(
            f"{what}: it lies on another file system",
            hint=f"mount the socket there: virt log relink --bind {domain}",
        )
    if error.errno in (EISDIR, EEXIST, ENOTEMPTY):
        return ApplyError(f"{what}: /dev/log is a folder", hint="remove that folder, then relink")
    return ApplyError(f"{what}: {(error.strerror or str(error)).lower()}")
