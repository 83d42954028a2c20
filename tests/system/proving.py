"""A program that proves one profile: alone in a domain, so that what it lacks no other supplies; JSON of it all."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from virttools.domains import create, testing
from virttools.domains.testing import Way
from virttools.domains.wish import Options, Wish
from virttools.enter import inside
from virttools.manifest.load import load
from virttools.manifest.model import Daemon, Manifest, Service
from virttools.probe import missing
from virttools.tree import beneath
from virttools.tree.record import Entry, Record
from virttools.tree.root import open_root


def prove(root_path: str, profile: str, address: str) -> dict[str, Any]:
    """What was found in the domain, which stays."""
    domain = f"{profile}.example"
    loaded = load(domain, manifest_file=None, profiles=[profile], addresses=[address])
    create.create(root_path, [Wish(domain, loaded)], Options())
    return looked_at(root_path, domain, loaded.manifest)


def looked_at(root_path: str, domain: str, manifest: Manifest) -> dict[str, Any]:
    tree = Path(root_path, domain)
    green = report(root_path, domain)
    with open_root(root_path) as root, root.open_tree(domain) as tree_fd:
        record = root.read_record(domain)
        there = {f"/{path}" for path, _ in beneath.walk(tree_fd)}
        nameless = unnamed(tree, tree_fd, record)
        needed = victim(tree_fd, record, manifest)
    with taken(tree, needed.path):
        red = report(root_path, domain)
    return {
        "green": green,
        "red": red,
        "victim": needed.path,
        "origin": needed.origin,
        "files": len(there),
        "unrecorded": sorted(there - {entry.path for entry in record.entries}),
        "unnamed": nameless,
    }


def report(root_path: str, domain: str) -> dict[str, Any]:
    """What `virt test` finds."""
    found = testing.run(root_path, domain, (), Way())
    return {
        "ok": found.is_ok,
        "services": {f"{one.service} {one.port}": one.is_ok for one in found.outcomes},
        "said": [line for one in found.outcomes for line in (one.told, *one.evidence)],
        "missing": [(one.path, one.supplied) for one in found.missing],
    }


def unnamed(tree: Path, tree_fd: int, record: Record) -> list[str]:
    """Whatever can be taken out of the tree by itself and is then not said to be missing."""
    found = []
    for entry in record.entries:
        if entry.type == "directory" and os.listdir(f"{tree}{entry.path}"):
            continue
        with taken(tree, entry.path):
            gone = missing.found(tree_fd, replace(record, entries=(entry,)))
        if [(one.path, one.supplied) for one in gone] != [(entry.path, missing.supplied(entry))]:
            found.append(entry.path)
    return found


@contextmanager
def taken(tree: Path, path: str) -> Iterator[None]:
    """Without that file, for a while."""
    place = f"{tree}{path}"
    os.rename(place, f"{place}.aside")
    try:
        yield
    finally:
        os.rename(f"{place}.aside", place)


def victim(tree_fd: int, record: Record, manifest: Manifest) -> Entry:
    """A library that only a program which is tried has brought, or else that program."""
    tried = {probe.service for probe in manifest.probes}
    running: tuple[Service | Daemon, ...] = (*manifest.services, *manifest.daemons)
    programs = [inside.real_path(tree_fd, one.program) for one in running if one.name in tried]
    libraries = [
        entry
        for entry in record.entries
        if entry.by in programs and entry.rule.startswith("DT_NEEDED")
    ]
    there = {entry.path: entry for entry in record.entries}
    return libraries[0] if libraries else there[programs[0]]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(prove(*sys.argv[1:])))
