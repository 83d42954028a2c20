"""What two domains or images have that differs."""

import os

from virttools.domains import images
from virttools.errors import UnknownDomain, VirtError
from virttools.image import differences, reading
from virttools.image.differences import Difference
from virttools.image.items import Item
from virttools.manifest import names
from virttools.tree.root import open_root

_NO_EPOCH = 1 << 62


def compare(root_path: str, before: str, after: str, *, times: bool) -> tuple[Difference, ...]:
    """How `after` differs from `before`: each is a domain, or the path of an image, PATH:TAG where it has several.

    times: whether modification times count. Raises UnknownDomain, Busy, ManifestError, ApplyError, HostLacks.
    """
    one, other = (_items(root_path, name) for name in (before, after))
    return differences.between(one, other, times=times)


def _items(root_path: str, name: str) -> tuple[Item, ...]:
    """A domain goes before a path: ./NAME is never a domain."""
    if _is_domain(root_path, name):
        with images.observed(root_path, names.domain(name)) as source:
            return images.look(source, _NO_EPOCH)
    if os.path.lexists(name):
        return reading.items(name)
    path, _, tag = name.rpartition(":")
    if path and os.path.lexists(path):
        return reading.items(path, tag)
    raise UnknownDomain(
        f"cannot compare {name}: neither a domain nor an image has that name",
        hint="`virt list` lists the domains; an image is a folder or a file",
    )


def _is_domain(root_path: str, name: str) -> bool:
    try:
        with open_root(root_path) as root:
            return names.domain(name) in root.domains()
    except VirtError:
        return False
