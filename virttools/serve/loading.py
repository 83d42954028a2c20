"""Doer: has a short-lived process read what is declared and build namespaces, so that the server stays small.

What goes wrong there, and what it loads, leaves no trace in the server.
"""

import _socket
import os
from array import array

from virttools.errors import ConfigError, VirtError
from virttools.serve import packing
from virttools.serve.board import Board
from virttools.serve.namespaces import Home, build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

Key = tuple[str, int, int, str]
_THREE = array("i", [0, 0, 0])
_MOVED = (2, 116)  # ENOENT, ESTALE
_ATTEMPTS = 5
_NO_ANSWER = ("it ended without an answer", None, (), 70)


class Loaded:
    """A board, and descriptors of the namespaces that it needs and that were not there before.

    digest: of all that the board says.
    """

    __slots__ = ("board", "digest", "namespaces")

    def __init__(
        self, board: Board, namespaces: dict[Key, tuple[int, ...]], digest: bytes = b""
    ) -> None:
        self.board = board
        self.namespaces = namespaces
        self.digest = digest

    def drop(self) -> None:
        """It is not wanted: close the namespaces."""
        _close(self.namespaces)


def load(read: "Callable[[], Board]", home: Home, there: "frozenset[Key]") -> Loaded:
    """Read what is to be served. there: the namespaces that need not be built.

    Raises VirtError, of the class that reading it raised.
    """
    with open(os.memfd_create("virt-serve-board"), "rb") as file:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _read_and_build(read, home, there, file.fileno(), theirs)
        theirs.close()
        found, is_whole = _receive(ours)
        os.waitpid(pid, 0)
        ours.close()
        file.seek(0)
        text = file.read()
    outcome, digest = packing.unpack(text) if text else (_NO_ANSWER, b"")
    if isinstance(outcome, Board) and is_whole:
        return Loaded(outcome, found, digest)
    _close(found)
    if not is_whole:
        raise ConfigError(
            "cannot keep the namespaces of all domains: too many open files",
            hint="three are needed for each: LimitNOFILE of systemd, or `ulimit -Hn`, allows more",
        )
    raise _error(*outcome)


def _close(namespaces: dict[Key, tuple[int, ...]]) -> None:
    for fds in namespaces.values():
        for fd in fds:
            os.close(fd)


def _error(
    message: str, hint: str | None, problems: "tuple[tuple[str, int, str], ...]", status: int
) -> VirtError:
    from virttools.errors import Problem

    error = ConfigError(
        message, hint=hint, problems=tuple(Problem(*problem) for problem in problems)
    )
    error.exit_code = status
    return error


def _receive(ours: _socket.socket) -> tuple[dict[Key, tuple[int, ...]], bool]:
    """The descriptors by place, and whether there was room for all of them (unix(7), MSG_CTRUNC)."""
    found: dict[Key, tuple[int, ...]] = {}
    is_whole = True
    space = _socket.CMSG_SPACE(len(_THREE) * _THREE.itemsize)
    while True:
        message, rights, _, _ = ours.recvmsg(8192, space)
        if not message:
            return found, is_whole
        fds = array("i", rights[0][2] if rights else b"")
        is_whole = is_whole and len(fds) == len(_THREE)
        for fd in fds:
            os.set_inheritable(fd, False)
        found[packing.unpack(message)] = tuple(fds)


def _read_and_build(
    read: "Callable[[], Board]",
    home: Home,
    there: "frozenset[Key]",
    result_fd: int,
    theirs: _socket.socket,
) -> "NoReturn":
    status = 70
    outcome: object = None
    digest = b""
    try:
        outcome = _read_until_built(read, home, set(there), theirs)
        digest = packing.digest(outcome)
        status = 0
    except VirtError as error:
        problems = getattr(error, "problems", ())
        plain = tuple((one.file, one.line, one.message) for one in problems)
        outcome = (error.message, error.hint, plain, error.exit_code)
    except Exception as error:  # noqa: BLE001  the server goes on with what it has
        outcome = (f"internal error: {type(error).__name__}: {error}", None, (), 70)
    finally:
        try:
            os.write(result_fd, packing.pack((outcome, digest)))
        finally:
            os._exit(status)


def _read_until_built(
    read: "Callable[[], Board]", home: Home, done: "set[Key]", theirs: _socket.socket
) -> Board:
    """What is declared, once all of its trees are those that were read: one may go, or come, meanwhile."""
    for _ in range(_ATTEMPTS - 1):
        board = read()
        try:
            _build(board, home, done, theirs)
        except _MovedError:
            continue
        return board
    board = read()
    _build(board, home, done, theirs)
    return board


class _MovedError(ConfigError):
    """A tree is another one than was read."""


def _build(board: Board, home: Home, done: "set[Key]", theirs: _socket.socket) -> None:
    for target in board.targets:
        place = target.place
        if place.isolation != "namespace" or place.key() in done:
            continue
        try:
            fds = build(home, place)
        except OSError as error:
            kind = _MovedError if error.errno in _MOVED else ConfigError
            raise kind(
                f"cannot build the namespaces of {place.domain}: {error.strerror}"
            ) from error
        done.add(place.key())
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", fds).tobytes())
        theirs.sendmsg([packing.pack(place.key())], [rights])
        for fd in fds:
            os.close(fd)
