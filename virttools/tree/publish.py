"""Doer: makes staging trees domains: durable first, then the record, then the tree by one rename.

A crash between the two renames leaves a record without a tree: no domain, and swept (staging.py).
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from errno import EEXIST, ENOTEMPTY

from virttools import linux
from virttools.errors import ApplyError, DomainExists
from virttools.tree.apply import Built, discard
from virttools.tree.content import create
from virttools.tree.record import Record, encode
from virttools.tree.root import Root, record_file

_RECORD = "record"


def publish(root: Root, builts: Sequence[tuple[Built, Record]]) -> None:
    """Publish every tree under its record's domain name; the staging trees are closed then.

    Raises DomainExists (before the first is published, unless somebody makes one at this very
    moment), Busy, ApplyError. Each domain is there whole or not at all.
    """
    lines: dict[int, str] = {}
    published: set[str] = set()
    with ExitStack() as locks:
        for _, record in builts:
            locks.enter_context(root.lock(record.domain))
            _refuse_existing(root, record.domain)
        try:
            for built, record in builts:
                _write_record(root, built, encode(record, lines))
            linux.syncfs(root.fd)
            for built, record in builts:
                _rename_record(root, built, record.domain)
            os.fsync(root.records_fd)
            for built, record in builts:
                _rename_tree(root, built, record.domain)
                published.add(record.domain)
            os.fsync(root.fd)
        except OSError as error:
            raise ApplyError(
                f"cannot publish {', '.join(record.domain for _, record in builts[:3])}: "
                f"{error.strerror}",
                hint=f"look at the file system of {root.path}; what is not published is gone",
            ) from error
        finally:
            for _, record in builts:
                if record.domain not in published:
                    _drop_record(root, record.domain)
    discard([built for built, _ in builts])


def _refuse_existing(root: Root, name: str) -> None:
    if root.look(name) is None:
        return
    if root.has(name):
        raise DomainExists(
            f"cannot create {name}: it exists already", hint=f"look at it: virt show {name}"
        )
    raise DomainExists(
        f"cannot create {name}: {root.path}/{name} exists, and no record says that we made it",
        hint="move it away",
    )


def _write_record(root: Root, built: Built, text: bytes) -> None:
    path = f"{built.staging_name}/{_RECORD}".encode()
    with open(create(path, root.staging_fd), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def _rename_record(root: Root, built: Built, name: str) -> None:
    os.rename(
        f"{built.staging_name}/{_RECORD}",
        record_file(name),
        src_dir_fd=root.staging_fd,
        dst_dir_fd=root.records_fd,
    )


def _rename_tree(root: Root, built: Built, name: str) -> None:
    source = f"{built.staging_name}/tree"
    try:
        linux.renameat2(root.staging_fd, source, root.fd, name, linux.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in (EEXIST, ENOTEMPTY):
            raise
        raise DomainExists(
            f"cannot create {name}: {root.path}/{name} was made meanwhile", hint="move it away"
        ) from error


def _drop_record(root: Root, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(record_file(name), dir_fd=root.records_fd)
