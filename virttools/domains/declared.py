"""What is declared: the merged manifest of a domain, as built or as it would be built."""

from collections.abc import Sequence
from dataclasses import dataclass

from virttools.errors import UnknownDomain
from virttools.manifest.load import load, reload
from virttools.manifest.model import Manifest
from virttools.tree.root import open_root


@dataclass(frozen=True, slots=True)
class Declared:
    """A merged manifest; as_built: it is the one that the domain was built from."""

    domain: str
    as_built: bool
    manifest: Manifest


def check(file: str) -> None:
    """Read one manifest with all that it includes. Raises ManifestError with every problem."""
    load("domain.invalid", manifest_file=file, profiles=(), addresses=())


def look(root_path: str, domain: str, *, defaults: Sequence[str]) -> Declared:
    """The manifest a domain was built from, else the one that `virt create` would take.

    defaults: the profiles of a domain without a manifest.
    """
    try:
        with open_root(root_path) as root:
            return Declared(domain, True, reload(root.read_record(domain).layers))
    except UnknownDomain:
        loaded = load(domain, manifest_file=None, profiles=(), addresses=(), defaults=defaults)
        return Declared(domain, False, loaded.manifest)
