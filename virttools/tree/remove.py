"""Doer: removes domains that nobody uses: out of sight by one rename, then deleted."""

import os
from contextlib import closing, suppress

from virttools import linux
from virttools.enter import userns
from virttools.errors import ApplyError, Busy
from virttools.tree import store
from virttools.tree.delete import delete
from virttools.tree.root import Root, record_file
from virttools.tree.staging import Batch
from virttools.tree.users import mounts_of, processes_in

_USED = "end those processes and unmount what is mounted there, then try again"
_KEPT = "`virt serve` runs its daemons: `virt serve --leave {name}` ends them, then try again"


def users_of(root: Root, name: str) -> tuple[str, ...]:
    """Who uses a tree, as words for a user: processes inside, and mounts on, below or from it.

    Raises UnknownDomain.
    """
    with root.open_tree(name) as tree_fd:
        return users_in(tree_fd)


def users_in(tree_fd: int) -> tuple[str, ...]:
    return processes_in(tree_fd) + mounts_of(tree_fd)


def remove(root: Root, name: str) -> None:
    """Remove a domain and what no other needs of the store.

    An ordinary user sees from outside of a user namespace who uses it, and deletes from inside.
    Raises UnknownDomain, Busy naming who uses it or what is mounted there, ApplyError, HostLacks.
    """
    with root.lock(name), root.open_tree(name) as tree_fd, closing(Batch(root)) as batch:
        refuse_used(name, users_in(tree_fd))
        trash = batch.folder(f"trash.{name}")
        _move(root, name, trash)
        # Whoever came in between the look and the rename is seen now; nobody comes after it.
        if users := users_in(tree_fd):
            linux.renameat2(root.staging_fd, trash, root.fd, name, linux.RENAME_NOREPLACE)
            refuse_used(name, users)
        with suppress(FileNotFoundError):
            os.unlink(record_file(name), dir_fd=root.records_fd)
        os.fsync(root.fd)
        userns.run(lambda: delete(root.staging_fd, trash))
    store.collect(root)


def refuse_used(name: str, users: tuple[str, ...]) -> None:
    if users:
        more = f" and {len(users) - 5} more" if len(users) > 5 else ""
        is_kept = any(user.endswith("(virt-keeper)") for user in users)
        raise Busy(
            f"cannot remove {name}: it is used by {', '.join(users[:5])}{more}",
            hint=_KEPT.format(name=name) if is_kept else _USED,
        )


def _move(root: Root, name: str, trash: str) -> None:
    try:
        linux.renameat2(root.fd, name, root.staging_fd, trash, linux.RENAME_NOREPLACE)
    except OSError as error:
        raise refusal(root, name, error) from error


def refusal(root: Root, name: str, error: OSError) -> ApplyError:
    return ApplyError(
        f"cannot remove {name}: {error.strerror}",
        hint=f"look at {root.path}/{name}: nothing was deleted",
    )
