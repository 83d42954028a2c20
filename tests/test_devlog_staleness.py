"""Staleness: what follows from what lies at dev/log, and what the kernel tells of listeners."""

import os
import socket
from pathlib import Path

import pytest

from virttools.devlog import staleness
from virttools.devlog.freshness import Found, Node, State, judge

MASTER = Node(1, 10, is_socket=True)
OLD = Node(1, 9, is_socket=True)
FAR = Node(2, 10, is_socket=True)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Found(link=MASTER, source=MASTER, device=1, is_heard=True), State.FRESH),
        (Found(link=MASTER, source=MASTER, device=1), State.UNHEARD),
        (Found(link=OLD, source=MASTER, device=1), State.STALE),
        (Found(link=OLD, source=MASTER, device=1, is_heard=True), State.STALE),
        (Found(link=OLD, device=1), State.UNHEARD),
        (Found(link=OLD, device=1, is_heard=True), State.FRESH),
        (Found(source=MASTER, device=1), State.MISSING),
        (Found(device=1), State.MISSING),
        (Found(), State.MISSING),
        (Found(source=FAR, device=1), State.APART),
        (Found(link=OLD, source=FAR, device=1), State.APART),
        (Found(link=FAR, source=FAR, device=1, is_heard=True), State.FRESH),
        (Found(source=MASTER, device=1, cause="its /dev is no folder"), State.REPLACED),
    ],
)
def test_what_was_found_is_judged(found: Found, state: State) -> None:
    """A name is fresh where it is the one socket that it should be, and somebody receives on it."""
    assert judge(found) is state


def test_the_kernel_names_who_listens(tmp_path: Path) -> None:
    """A bound socket is known by its inode, under each of its names; a dead one is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        os.link(tmp_path / "log", tmp_path / "second")
        found = (tmp_path / "second").stat()
        assert (found.st_dev, found.st_ino) in staleness.bound_inodes()
        assert heard(tmp_path / "second")
    assert (found.st_dev, found.st_ino) not in staleness.bound_inodes()
    assert not heard(tmp_path / "second")


def test_a_stream_socket_that_listens_is_heard(tmp_path: Path) -> None:
    """A stream is what syslog(3) tries where a datagram is refused; one that does not listen counts as none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        found = (tmp_path / "log").stat()
        assert (found.st_dev, found.st_ino) not in staleness.bound_inodes()
        daemon.listen()
        assert (found.st_dev, found.st_ino) in staleness.bound_inodes()
        assert heard(tmp_path / "log")


def heard(path: Path) -> bool:
    fd = os.open(path, os.O_PATH)
    try:
        return staleness.is_heard(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("file", "/dev/log is a file, not a socket"),
        ("fifo", "/dev/log is a fifo, not a socket"),
        ("folder", "/dev/log is a folder, not a socket"),
        ("loop", "/dev/log leads nowhere"),
        ("out", None),
    ],
)
def test_what_is_no_socket_is_named(tmp_path: Path, kind: str, cause: str | None) -> None:
    """Nothing is opened that acts or waits, and no link leads out of the tree."""
    log = tmp_path / "tree/dev/log"
    log.parent.mkdir(parents=True)
    match kind:
        case "file":
            log.touch()
        case "fifo":
            os.mkfifo(log)
        case "folder":
            log.mkdir()
        case "loop":
            log.symlink_to("log")
        case _:
            (tmp_path / "outside").touch()
            log.symlink_to("../../outside")
    fd = os.open(tmp_path / "tree", os.O_PATH)
    found = staleness.find(fd, MASTER, frozenset())
    os.close(fd)
    assert (found.cause or "").startswith(cause or "")
    assert (found.cause is None) == (cause is None)
