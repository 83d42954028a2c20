"""Doer: hands all that the supervisor holds to the program that replaces it in its process, and takes it there."""

import _socket
import os
import sys

from virttools import linux
from virttools.serve import packing
from virttools.serve.board import Board
from virttools.serve.children import Children
from virttools.serve.daemons import Fleet
from virttools.serve.holdings import Holdings
from virttools.serve.ledger import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATE = "VIRT_SERVESTATE"
Counts = tuple[float, int, int]
"""When the server started, reloads, failed reloads."""


def leave(
    held: Holdings, children: Children, fleet: Fleet, control: _socket.socket, counts: Counts
) -> int:
    """A descriptor of what a successor needs, in memory; every descriptor it names is left open for it."""
    state_fd = os.memfd_create("virt-serve-state", 0)
    state = {
        "ledger": held.ledger.fd,
        "rows": (held.rows.numbers, held.rows.spare),
        "sockets": {key: socket.fileno() for key, socket in held.sockets.items()},
        "namespaces": held.namespaces,
        "children": [
            (
                child.pid,
                child.control.fileno(),
                child.is_waiting,
                child.is_draining,
                child.is_stopped,
            )
            for child in children.all.values()
        ],
        "daemons": fleet.state(),
        "control": control.fileno(),
        "counts": counts,
        "files": held.files,
        "board": packing.pack(held.board),
        "passed": list(held.passed),
    }
    os.write(state_fd, packing.pack(state))
    for fd in (
        state_fd,
        control.fileno(),
        *held.descriptors(),
        *children.by_control(),
        *fleet.controls(),
    ):
        os.set_inheritable(fd, True)
    return state_fd


def take(held: Holdings, children: Children, fleet: Fleet) -> tuple[_socket.socket, Counts] | None:
    """Take what a predecessor in this process left; None: there was none."""
    number = os.environ.pop(STATE, "")
    if not number:
        return None
    with open(int(number), "rb") as file:
        file.seek(0)
        state = _unpack(file.read())
    held.files = state.get("files", held.files)  # version 0.1.0 had the same for all
    held.ledger = Ledger(state["ledger"])
    held.rows.numbers, held.rows.spare = state["rows"]
    held.board = _board(state.get("board"))
    held.passed = set(state.get("passed", ()))
    held.sockets = {key: _socket.socket(fileno=fd) for key, fd in state["sockets"].items()}
    # A predecessor of before 0.2 had no ipc namespaces. Its spawners that drain may still enter the
    # others by their numbers, so those stay open.
    held.namespaces = {key: fds for key, fds in state["namespaces"].items() if len(fds) == 3}
    for pid, fd, is_waiting, is_draining, is_stopped in state["children"]:
        child = children.add(pid, _socket.socket(fileno=fd), is_waiting=is_waiting)
        child.is_ready, child.is_draining, child.is_stopped = True, is_draining, is_stopped
        child.board = None if is_draining else held.board
    fleet.take(state.get("daemons", []))  # one that knew of none left none
    linux.close_range_cloexec(3)
    counts: Counts = state["counts"]
    return _socket.socket(fileno=state["control"]), counts


def _board(text: bytes | None) -> Board:
    """What the predecessor serves, or nothing where it told nothing that we understand."""
    try:
        found = packing.unpack(text) if text else None
    except (ValueError, TypeError, IndexError):  # another version's
        found = None
    return found if isinstance(found, Board) else Board()


def _unpack(text: bytes) -> "dict[str, Any]":
    if text[:1] == b"\x80":  # version 0.1.0 pickled it
        import pickle

        return pickle.loads(text)  # type: ignore[no-any-return]  # noqa: S301  this process wrote it
    return packing.unpack(text)  # type: ignore[no-any-return]


def own_command() -> list[str]:
    """The command line that started this process, as it can be run from any folder."""
    words = [os.path.abspath(word) if "/" in word else word for word in sys.orig_argv[1:]]
    return [sys.executable, *words]
