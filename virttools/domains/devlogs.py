"""The dev/log of many domains: bound for new ones, linked anew, looked at, mended as daemons come and go."""

import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from virttools.devlog import handover, places, sockets, staleness
from virttools.devlog import relink as linking
from virttools.devlog.freshness import State, judge
from virttools.devlog.watch import Watch
from virttools.errors import UnknownDomain, VirtError
from virttools.manifest.model import DevLog
from virttools.tree.record import Head
from virttools.tree.root import Root, open_root


@dataclass(frozen=True, slots=True)
class Seen:
    """The dev/log of one domain. source: the socket that it should be, relative to the root."""

    domain: str
    devlog: DevLog
    source: str
    state: State
    cause: str | None


@dataclass(frozen=True, slots=True)
class Relinked:
    """What relinking one domain came to. is_new: it had to be done; fault: why it could not be."""

    domain: str
    is_new: bool
    fault: VirtError | None = None


@contextmanager
def bound(root: Root, domains: Sequence[str]) -> Generator[dict[str, socket.socket], None, None]:
    """New sockets for domains about to be made, for a `with`; those of domains that were not made go.

    The caller holds the domains' locks.
    """
    found: dict[str, socket.socket] = {}
    with ExitStack() as held:
        for domain in domains:
            # One that somebody made meanwhile keeps its socket: create is about to refuse.
            if not root.has(domain):
                held.callback(_forget_unmade, root, domain)
                found[domain] = held.enter_context(sockets.bind(root, domain))
        yield found


def _forget_unmade(root: Root, domain: str) -> None:
    if not root.has(domain):
        sockets.forget(root, domain)


def hand_over(root: Root, made: dict[str, socket.socket]) -> bool:
    """Give new sockets to the server, if one runs; else it links its own when it starts."""
    return bool(made) and handover.hand_over(root.log_fd, made.items())


def status(root_path: str, names: Sequence[str]) -> tuple[Seen, ...]:
    """The dev/log of these domains, or of all. Raises UnknownDomain."""
    try:
        root = open_root(root_path)
    except UnknownDomain:
        if names:
            raise
        return ()
    with root:
        bound = staleness.bound_inodes()
        return tuple(look(root, head, bound) for head in _heads(root, names, "look at"))


def look(root: Root, head: Head, bound: frozenset[tuple[int, int]]) -> Seen:
    """The dev/log of one domain; bound: the sockets that somebody receives on."""
    source = staleness.source_of(head)
    with root.open_tree(head.domain) as tree_fd:
        found = staleness.find(tree_fd, staleness.node(root.fd, source), bound)
    return Seen(head.domain, head.devlog, source, judge(found), found.cause)


def relink(root_path: str, names: Sequence[str], *, bind: bool = False) -> tuple[Relinked, ...]:
    """Link dev/log of these domains, or of all, anew where it is not the socket it should be.

    bind: mount it where the tree lies on another file system. Raises UnknownDomain before the first.
    """
    with open_root(root_path) as root:
        return tuple(_relink(root, head, bind=bind) for head in _heads(root, names, "relink"))


def _relink(root: Root, head: Head, *, bind: bool = False) -> Relinked:
    try:
        return Relinked(head.domain, linking.relink(root, head, bind=bind))
    except VirtError as fault:
        return Relinked(head.domain, is_new=False, fault=fault)


def _heads(root: Root, names: Sequence[str], verb: str) -> tuple[Head, ...]:
    for name in names:
        root.require(name, verb)
    heads = root.heads()
    return tuple(head for head in heads if head.domain in names) if names else heads


def watch(root_path: str) -> Iterator[Relinked]:
    """Relink all that is not right, now and whenever a socket or a domain appears; told what was done.

    What cannot be mended is told once, until it changes. Raises UnknownDomain without a root.
    """
    with open_root(root_path) as root, Watch(root) as events:
        told: dict[str, str] = {}
        while True:
            yield from _news(_mend(root), told)
            events.wait()


def _mend(root: Root) -> Iterator[Relinked]:
    for head in root.heads():
        source = staleness.source_of(head)
        # Without a socket nothing can be mended: its coming is an event of its own.
        if staleness.node(root.fd, source) is not None:
            with suppress(UnknownDomain):  # removed meanwhile
                yield _relink(root, head)


def _news(outcomes: Iterator[Relinked], told: dict[str, str]) -> Iterator[Relinked]:
    for one in outcomes:
        said = one.fault.message if one.fault else ""
        if one.is_new or (said and told.get(one.domain) != said):
            yield one
        told[one.domain] = said


def shared_socket(root_path: str) -> str:
    """Where the socket of `devlog = "shared"` lies."""
    return f"{root_path}/{places.SHARED}"
