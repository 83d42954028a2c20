"""Removing domains, one lock at a time."""

from collections.abc import Sequence

from virttools.devlog import belonging, sockets
from virttools.enter import history, userns
from virttools.serve import asking
from virttools.serve.places import SOCKET
from virttools.tree import kept
from virttools.tree import remove as trees
from virttools.tree.root import open_root


def remove(root_path: str, names: Sequence[str], *, keep: bool = False) -> tuple[str, ...]:
    """Remove each domain whole; all names are checked before the first goes. keep: where the trees lie then.

    Raises UnknownDomain, and Busy where something is mounted below or runs inside.
    """
    with open_root(root_path) as root:
        for name in names:
            root.require(name, "remove")
        userns.require()
        places = []
        for name in names:
            with root.lock(name):
                if keep:
                    places.append(kept.keep(root, name))
                else:
                    trees.remove(root, name)
                sockets.forget(root, name)
                belonging.forget(name)
                history.forget(root.path, name)
        if places:
            asking.ask(f"{root.path}/{SOCKET}", asking.LOOK)
    return tuple(places)
