"""Doer: the socket that `virt serve --status` asks, and what it is told."""

import _socket
import marshal
import os
import time

from virttools.errors import UnknownDomain
from virttools.serve import ledger
from virttools.serve.daemons import Fleet
from virttools.serve.holdings import Holdings

_FOLDER = os.O_PATH | os.O_DIRECTORY


def open_at(path: str) -> _socket.socket:
    """A socket that listens there; with no path, one that nobody can ask.

    Raises UnknownDomain where no domain was ever made below that root.
    """
    found = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    if not path:
        return found
    remove(path)
    folder, _, name = path.rpartition("/")
    try:
        folder_fd = os.open(folder, _FOLDER)
    except FileNotFoundError:
        found.close()
        raise UnknownDomain(
            f"cannot serve {os.path.dirname(folder)}: there are no domains yet",
            hint="make one: virt create domain1.com",
        ) from None
    old = os.umask(0o177)
    try:  # sun_path is short, unix(7)
        found.bind(f"/proc/self/fd/{folder_fd}/{name}")
    finally:
        os.umask(old)
        os.close(folder_fd)
    found.listen(16)
    found.setblocking(False)
    return found


def answer(control: _socket.socket, text: bytes) -> bytes:
    """Answer who asks; what they wish for."""
    try:
        fd, _ = control._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    except OSError:
        return b""
    connection = _socket.socket(fileno=fd)
    try:
        connection.settimeout(1.0)
        connection.sendall(text)
        connection.shutdown(_socket.SHUT_WR)
        return connection.recv(512)
    except OSError:
        return b""  # it did not wait for the answer
    finally:
        connection.close()


def report(
    held: Holdings,
    fleet: Fleet,
    pids: list[int],
    started: float,
    reloads: tuple[int, int],
    *,
    reloading: tuple[bool, str],
) -> bytes:
    """What happens now, in a form that `virt serve --status` puts into words.

    reloads: done, refused; reloading: whether one is going on, and why the last one was refused.
    """
    rows = held.assign()
    places: dict[int, list[str]] = {}
    for endpoint in held.board.endpoints:
        for position in {*endpoint.targets.values(), endpoint.default}:
            if position is not None:
                places.setdefault(position, []).append(str(endpoint))
    return marshal.dumps(
        (
            os.getpid(),
            time.monotonic() - started,
            pids,
            (*reloads, held.ledger.row(rows[-1])[ledger.FAILED]),
            [
                (
                    target.service,
                    target.place.domain,
                    target.every,
                    places.get(at, []),
                    held.ledger.row(row),
                )
                for at, (target, row) in enumerate(zip(held.board.targets, rows, strict=False))
            ],
            fleet.rows(),
            (*reloading, held.ledger.lost()),
        )
    )


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
