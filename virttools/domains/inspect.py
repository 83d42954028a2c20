"""Looking at domains: which there are, what is in one, and where a path in it came from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from virttools.errors import CheckFailed
from virttools.tree.paths import Links
from virttools.tree.record import Entry, Record
from virttools.tree.root import Root, open_root


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `virt show` says of a domain. size: bytes of its files; shared: bytes that lie in the store."""

    domain: str
    path: str
    addresses: tuple[str, ...]
    profiles: tuple[str, ...]
    uid_base: int
    layers: tuple[str, ...]
    kinds: tuple[tuple[str, int], ...]
    size: int
    shared: int
    packages: tuple[tuple[str, str, int], ...]


def require(root_path: str, names: Sequence[str], verb: str) -> None:
    """Raise UnknownDomain for the first name that no domain has; `verb` is what was to be done to it."""
    with open_root(root_path) as root:
        for name in names:
            root.require(name, verb)


def summary(root: Root, name: str) -> Summary:
    """Raises UnknownDomain, ApplyError where the record is damaged."""
    record = root.read_record(name)
    files = [entry for entry in record.entries if entry.type == "file"]
    origins = Counter(
        (entry.package, entry.version or "") for entry in record.entries if entry.package
    )
    return Summary(
        domain=name,
        path=f"{root.path}/{name}",
        addresses=record.addresses,
        profiles=record.profiles,
        uid_base=record.uid_base,
        layers=tuple(layer.file for layer in record.layers),
        kinds=tuple(sorted(Counter(entry.type for entry in record.entries).items())),
        size=sum(entry.size for entry in files if entry.link is None),
        shared=sum(entry.size for entry in files if entry.shared),
        packages=tuple(
            (package, version, count) for (package, version), count in sorted(origins.items())
        ),
    )


def chain(record: Record, path: str) -> tuple[Entry, ...]:
    """The entry at `path` (links in its folders followed), then who asked for it, up to the manifest's own line.

    Raises CheckFailed where the build put nothing there.
    """
    entries = {entry.path: entry for entry in record.entries}
    found = _entry(record, entries, path)
    steps = [found]
    while (by := steps[-1].by) is not None and by in entries and entries[by] not in steps:
        steps.append(entries[by])
    return tuple(steps)


def _entry(record: Record, entries: dict[str, Entry], path: str) -> Entry:
    links = Links()
    for entry in record.entries:
        if entry.target is not None:
            links.add(entry.path.strip("/"), entry.target)
    place = f"/{links.canonical_parent(path)}"
    if place in entries:
        return entries[place]
    raise CheckFailed(
        f"cannot say why {path} is in {record.domain}: no build put anything there",
        hint=f"if it exists, somebody inside made it; `virt show {record.domain}` counts what was built",
    )
