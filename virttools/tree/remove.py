"""Doer: removes domains that nobody uses: out of sight by one rename, then deleted or kept there."""

import os
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from itertools import count

from virttools import linux
from virttools.enter import userns
from virttools.errors import ApplyError, Busy
from virttools.tree import beneath, store
from virttools.tree.delete import delete
from virttools.tree.root import Root, record_file
from virttools.tree.staging import Batch
from virttools.tree.users import mounts_of, processes_in

KEPT = ".virt/kept"
"""Where trees lie that were kept, relative to the root."""

_USED = "end those processes and unmount what is mounted there, then try again"
_KEPT = (
    "`virt serve` runs its daemons, and starts anew what is killed: end the server, remove the domain,"
    " start the server again"
)


def users_of(root: Root, name: str) -> tuple[str, ...]:
    """Who uses a tree, as words for a user: processes inside, and mounts on, below or from it.

    Raises UnknownDomain.
    """
    with root.open_tree(name) as tree_fd:
        return _users(tree_fd)


def _users(tree_fd: int) -> tuple[str, ...]:
    return processes_in(tree_fd) + mounts_of(tree_fd)


def remove(root: Root, name: str) -> None:
    """Remove a domain and what no other needs of the store.

    An ordinary user sees from outside of a user namespace who uses it, and deletes from inside.
    Raises UnknownDomain, Busy naming who uses it or what is mounted there, ApplyError, HostLacks.
    """
    with root.lock(name), root.open_tree(name) as tree_fd, closing(Batch(root)) as batch:
        _refuse_used(name, _users(tree_fd))
        trash = batch.folder(f"trash.{name}")
        _move(root, name, trash)
        # Whoever came in between the look and the rename is seen now; nobody comes after it.
        if users := _users(tree_fd):
            linux.renameat2(root.staging_fd, trash, root.fd, name, linux.RENAME_NOREPLACE)
            _refuse_used(name, users)
        with suppress(FileNotFoundError):
            os.unlink(record_file(name), dir_fd=root.records_fd)
        os.fsync(root.fd)
        userns.run(lambda: delete(root.staging_fd, trash))
    store.collect(root)


def keep(root: Root, name: str) -> str:
    """Remove a domain but for its tree, which goes to .virt/kept by one rename; its path there.

    Raises as `remove`.
    """
    with root.lock(name), root.open_tree(name) as tree_fd, _kept(root) as kept_fd:
        _refuse_used(name, _users(tree_fd))
        place = _set_aside(root, name, kept_fd)
        if users := _users(tree_fd):
            linux.renameat2(kept_fd, place, root.fd, name, linux.RENAME_NOREPLACE)
            _refuse_used(name, users)
        os.fsync(kept_fd)
        with suppress(FileNotFoundError):
            os.unlink(record_file(name), dir_fd=root.records_fd)
        os.fsync(root.fd)
    return f"{root.path}/{KEPT}/{place}"


@contextmanager
def _kept(root: Root) -> Generator[int, None, None]:
    """The folder of kept trees, for nobody but root: .virt is 0700, too."""
    try:
        with suppress(FileExistsError):
            os.mkdir(KEPT, 0o700, dir_fd=root.fd)
        kept_fd = beneath.open_beneath(root.fd, KEPT, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        said = f"cannot keep anything in {root.path}/{KEPT}: {error.strerror}"
        raise ApplyError(said, hint="look what is there: nothing was removed") from error
    try:
        yield kept_fd
    finally:
        os.close(kept_fd)


def _set_aside(root: Root, name: str, kept_fd: int) -> str:
    """Under its name, or the first with a number that nothing has."""
    for number in count(1):
        place = name if number == 1 else f"{name}.{number}"
        try:
            linux.renameat2(root.fd, name, kept_fd, place, linux.RENAME_NOREPLACE)
        except FileExistsError:
            continue
        except OSError as error:
            raise _refusal(root, name, error) from error
        return place
    raise AssertionError  # there is always one more number


def _refuse_used(name: str, users: tuple[str, ...]) -> None:
    if users:
        more = f" and {len(users) - 5} more" if len(users) > 5 else ""
        is_kept = any(user.endswith("(virt-keeper)") for user in users)
        raise Busy(
            f"cannot remove {name}: it is used by {', '.join(users[:5])}{more}",
            hint=_KEPT if is_kept else _USED,
        )


def _move(root: Root, name: str, trash: str) -> None:
    try:
        linux.renameat2(root.fd, name, root.staging_fd, trash, linux.RENAME_NOREPLACE)
    except OSError as error:
        raise _refusal(root, name, error) from error


def _refusal(root: Root, name: str, error: OSError) -> ApplyError:
    return ApplyError(
        f"cannot remove {name}: {error.strerror}",
        hint=f"look at {root.path}/{name}: nothing was deleted",
    )
