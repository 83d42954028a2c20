"""A board goes to another process and comes back as it was."""

import pickle
import subprocess

import pytest

from virttools.serve import board as boards
from virttools.serve import packing, routes, successor
from virttools.serve.admission import Limits, Rate
from virttools.serve.board import Board, Daemon, Endpoint, Ids, Place, Target


def full() -> Board:
    """One with everything that can be on it, and two services of one place."""
    place = Place("d1.test", "/srv/d1.test", hostname="d1.test", identity=(1, 2))
    limits = Limits(
        instances=3,
        per_source=2,
        cps=Rate(5, 1.5, 10),
        only_from=("10.0.0.0/8", "::1"),
        access_times=((0, 60), (1380, 20)),
    )
    targets = tuple(
        Target(
            service,
            place,
            path=b"/bin/\xff",
            argv=(b"in.\xff", b""),
            env={b"PATH": b"/bin"},
            ids=Ids(1000, 1001, (5, 6)),
            limits=limits,
            rlimits=((7, -1),),
            log_success=frozenset(("PID", "HOST")),
        )
        for service in ("ftp", "pop")
    )
    found = routes.parse("10.1.0.1 /srv/d1.test\n10.2.0.0/16 /srv/d1.test\ndefault /x\n", "conf")
    endpoint = Endpoint(
        "tcp",
        "::",
        21,
        targets={"10.1.0.1": 0},
        routes=found,
        folders={"/srv/d1.test": 1},
        options=((6, 9, 1),),
    )
    daemon = Daemon("nginx", place, path=b"/usr/sbin/nginx", argv=(b"nginx",), env={})
    return Board(targets, (endpoint,), ("a note \udcff",), (daemon,))


def look(value: object) -> object:
    """Everything in a value, to compare."""
    slots = getattr(type(value), "__slots__", None)
    if slots is not None:
        return type(value).__name__, {name: look(getattr(value, name)) for name in slots}
    if isinstance(value, (tuple, list)):
        return type(value), [look(one) for one in value]
    if isinstance(value, dict):
        return {key: look(one) for key, one in value.items()}
    return type(value), value


def test_all_of_a_board_comes_back() -> None:
    board = full()
    again = packing.unpack(packing.pack(board))
    assert look(again) == look(board)
    assert again.targets[0].place is again.targets[1].place is again.daemons[0].place
    assert again.endpoints[0].routes.find(routes.pack("10.2.3.4") or b"", 21) == "/srv/d1.test"


def test_every_class_of_a_board_is_known() -> None:
    kinds = {kind for kind in vars(boards).values() if isinstance(kind, type)}
    assert kinds - {boards.Finder} <= set(packing._CLASSES)


@pytest.mark.parametrize("value", [{1: "x", ("a", 2): [None, True, 1.5]}, (), "", 7, None])
def test_what_python_builds_in_comes_back(value: object) -> None:
    assert look(packing.unpack(packing.pack(value))) == look(value)


def test_nothing_else_is_packed() -> None:
    with pytest.raises(TypeError, match="cannot pack a CompletedProcess"):
        packing.pack([subprocess.CompletedProcess((), 0)])


def test_what_the_first_version_left_is_taken() -> None:
    """It pickled its state: a server of it can be upgraded in place."""
    state = {"counts": (1.5, 2, 0), "sockets": {("tcp", "::", 21): 7}}
    assert successor._unpack(pickle.dumps(state)) == state
    assert successor._unpack(packing.pack(state)) == state


def test_a_digest_tells_what_is_the_same_from_what_is_not() -> None:
    """However it was made, and however many objects are one: a server renews its spawners by it."""
    first, other = full(), packing.unpack(packing.pack(full()))
    assert packing.digest(first) == packing.digest(other)
    other.targets[1].limits.instances += 1
    assert packing.digest(first) != packing.digest(other)
