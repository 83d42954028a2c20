"""Doer: folders under .virt/staging: trees are built there before, and deleted after, their life.

Those of one batch end in its token, whose lock its maker holds: without a holder they are swept.
"""

import logging
import os
from contextlib import suppress

from virttools.errors import ApplyError, Busy
from virttools.tree import locks, store
from virttools.tree.delete import delete
from virttools.tree.root import Root, record_file

_LOCK = ".lock."
_log = logging.getLogger(__name__)


class Batch:
    """The staging folders of one build or removal. Closing it leaves what is there to the sweep."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._count = 0
        self._open: set[str] = set()
        while True:
            self._token = os.urandom(8).hex()
            try:
                self._lock_fd = locks.acquire(root.staging_fd, self._lock_file)
            except BlockingIOError:
                continue  # a sweep had it first
            except OSError as error:
                raise locks.refusal("a folder to build in", error) from error
            return

    @property
    def _lock_file(self) -> str:
        return f"{_LOCK}{self._token}"

    def folder(self, name: str) -> str:
        """The name of one more folder, for that domain; never longer than a name may be."""
        self._count += 1
        folder = f"{name[:200]}.{self._count}.{self._token}"
        self._open.add(folder)
        return folder

    def has(self, folder: str) -> bool:
        """Whether that folder was not discarded yet."""
        return folder in self._open

    def discard(self, folder: str) -> None:
        """Delete a folder and what is in it; what can't be deleted is left to the sweep."""
        self._open.discard(folder)
        _delete(self._root, folder)

    def is_empty(self) -> bool:
        return not self._open

    def close(self) -> None:
        """Give the token back."""
        if self._lock_fd < 0:
            return
        if not any(name.endswith(self._token) for name in _folders(self._root)):
            os.unlink(self._lock_file, dir_fd=self._root.staging_fd)
        os.close(self._lock_fd)
        self._lock_fd = -1


def sweep(root: Root) -> None:
    """Clear away what a crash left: staging folders, records without a tree, locks of no domain.

    Spares all that somebody holds. What can't be deleted is logged, and stays for the next sweep.
    """
    before = _folders(root)
    _sweep_folders(root)
    for name in (*root.recorded(), *os.listdir(root.locks_fd)):
        if not name.startswith(".") and not root.has(name):
            _drop_remains(root, name)
    if before:
        store.collect(root)


def _sweep_folders(root: Root) -> None:
    for token in _tokens(root):
        _sweep_batch(root, token)
    folders = _folders(root)
    # Asked for after the folders: a batch has its lock before its first folder.
    held = set(_tokens(root))
    orphans = [folder for folder in folders if folder.rpartition(".")[2] not in held]
    for folder in orphans:
        _delete(root, folder)


def _tokens(root: Root) -> list[str]:
    names = os.listdir(root.staging_fd)
    return [name.removeprefix(_LOCK) for name in names if name.startswith(_LOCK)]


def _folders(root: Root) -> list[str]:
    return [name for name in os.listdir(root.staging_fd) if not name.startswith(_LOCK)]


def _sweep_batch(root: Root, token: str) -> None:
    lock_file = f"{_LOCK}{token}"
    try:
        lock_fd = locks.acquire(root.staging_fd, lock_file)
    except BlockingIOError:
        return
    try:
        for folder in _folders(root):
            if folder.endswith(token):
                _delete(root, folder)
        os.unlink(lock_file, dir_fd=root.staging_fd)
    finally:
        os.close(lock_fd)


def _delete(root: Root, folder: str) -> None:
    try:
        delete(root.staging_fd, folder)
    except (ApplyError, Busy) as error:
        _log.warning("%s", error.message)


def _drop_remains(root: Root, name: str) -> None:
    """A crash between the renames of record and tree leaves a record; a kill leaves a lock file."""
    with suppress(Busy), root.lock(name):
        if not root.has_tree(name):
            with suppress(FileNotFoundError):
                os.unlink(record_file(name), dir_fd=root.records_fd)
