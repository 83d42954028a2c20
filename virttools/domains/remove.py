"""Removing domains, one lock at a time."""

from collections.abc import Sequence

from virttools.errors import UnknownDomain
from virttools.tree import remove as trees
from virttools.tree.root import Root, open_root


def remove(root_path: str, names: Sequence[str]) -> None:
    """Remove each domain whole; all names are checked before the first goes.

    Raises UnknownDomain, and Busy where something is mounted below or runs inside.
    """
    with open_root(root_path) as root:
        for name in names:
            _refuse_unknown(root, name)
        for name in names:
            with root.lock(name):
                trees.remove(root, name)


def _refuse_unknown(root: Root, name: str) -> None:
    if not root.has(name):
        raise UnknownDomain(
            f"cannot remove {name}: there is no such domain below {root.path}",
            hint="`virt list` names those that are there",
        )
