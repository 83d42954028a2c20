"""Doer: trees of removed domains that are set aside: in .virt/kept, each with its record beside it.

The record is there before the tree is: whose ids a kept tree has is known at any moment.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from errno import EINVAL
from itertools import count
from stat import S_ISREG

from virttools import linux
from virttools.errors import ApplyError
from virttools.tree import beneath
from virttools.tree.record import Head, head
from virttools.tree.remove import refusal, refuse_used, users_in
from virttools.tree.root import Root, record_file

FOLDER = ".virt/kept"
"""Where they lie, relative to the root."""


def keep(root: Root, name: str) -> str:
    """Remove a domain but for its tree and record, which go to .virt/kept; the tree by one rename. Its path there.

    Raises as `remove`.
    """
    with (
        root.lock(name),
        root.open_tree(name) as tree_fd,
        _folder(root) as kept_fd,
        root.lock_all(),  # who sweeps between the record and its tree would take the record away
    ):
        refuse_used(name, users_in(tree_fd))
        _sweep(kept_fd)
        place = _set_aside(root, name, kept_fd)
        if users := users_in(tree_fd):
            linux.renameat2(kept_fd, place, root.fd, name, linux.RENAME_NOREPLACE)
            os.unlink(_record_of(place), dir_fd=kept_fd)
            refuse_used(name, users)
        os.fsync(kept_fd)
        with suppress(FileNotFoundError):
            os.unlink(record_file(name), dir_fd=root.records_fd)
        os.fsync(root.fd)
    return f"{root.path}/{FOLDER}/{place}"


def heads(root: Root) -> dict[str, Head]:
    """The heads of their records, by the path of the tree. Raises ApplyError where one is damaged."""
    found: dict[str, Head] = {}
    if not os.path.isdir(f"{root.path}/{FOLDER}"):
        return found
    with _folder(root) as kept_fd:
        for place in sorted(_trees(kept_fd)):
            path = f"{root.path}/{FOLDER}/{place}"
            try:
                found[path] = _head(kept_fd, place, path)
            except FileNotFoundError:  # set aside by an older virt
                continue
            except OSError as error:
                said = f"cannot read the record of {path}: {error.strerror}"
                raise ApplyError(said, hint=f"look at {FOLDER}/{_record_of(place)}") from error
    return found


def _head(kept_fd: int, place: str, path: str) -> Head:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(_record_of(place), flags, dir_fd=kept_fd), "rb") as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(EINVAL, "it is no plain file")
        return head(file.readline(), f"the record of {path}")


@contextmanager
def _folder(root: Root) -> Generator[int, None, None]:
    """The folder of kept trees, for nobody but root: .virt is 0700, too."""
    try:
        with suppress(FileExistsError):
            os.mkdir(FOLDER, 0o700, dir_fd=root.fd)
        kept_fd = beneath.open_beneath(root.fd, FOLDER, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        said = f"cannot use {root.path}/{FOLDER}: {error.strerror}"
        raise ApplyError(said, hint="look what is there: nothing was changed") from error
    try:
        yield kept_fd
    finally:
        os.close(kept_fd)


def _trees(kept_fd: int) -> set[str]:
    return {name for name in os.listdir(kept_fd) if not name.startswith(".")}


def _record_of(place: str) -> str:
    """No domain has a name like this."""
    return f".{record_file(place)}"


def _sweep(kept_fd: int) -> None:
    """Clear away the records of trees that somebody has deleted."""
    there = {_record_of(place) for place in _trees(kept_fd)}
    for name in os.listdir(kept_fd):
        if name.startswith(".") and name not in there:
            os.unlink(name, dir_fd=kept_fd)


def _set_aside(root: Root, name: str, kept_fd: int) -> str:
    """Under its name, or the first with a number that nothing has."""
    there = _trees(kept_fd)
    names = (name if number == 1 else f"{name}.{number}" for number in count(1))
    place = next(one for one in names if one not in there)
    record = _record_of(place)
    try:
        os.link(
            record_file(name),
            record,
            src_dir_fd=root.records_fd,
            dst_dir_fd=kept_fd,
            follow_symlinks=False,
        )
        linux.renameat2(root.fd, name, kept_fd, place, linux.RENAME_NOREPLACE)
    except OSError as error:
        with suppress(OSError):
            os.unlink(record, dir_fd=kept_fd)
        raise refusal(root, name, error) from error
    return place
