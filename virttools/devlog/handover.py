"""Doer: hands the descriptors of new sockets to the server that runs, and says which are gone.

The protocol: a sequenced packet `take DOMAIN` with one descriptor, or `drop DOMAIN`; answered `ok`.
"""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from virttools.devlog import places

TAKE = b"take "
DROP = b"drop "
OK = b"ok"
PATIENCE = 5.0
"""Seconds after which a server that does not answer counts as none: it finds new sockets by itself."""


def hand_over(log_fd: int, bound: Iterable[tuple[str, socket.socket]]) -> bool:
    """Give a running server these domains' sockets; False where none runs, or it does not answer.

    log_fd: the folder of the sockets.
    """
    return _say(log_fd, [(TAKE + domain.encode(), one) for domain, one in bound])


def drop(log_fd: int, domains: Iterable[str]) -> bool:
    """Have a running server let go of these domains."""
    return _say(log_fd, [(DROP + domain.encode(), None) for domain in domains])


def _say(log_fd: int, packets: Iterable[tuple[bytes, socket.socket | None]]) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line, suppress(OSError):
        line.settimeout(PATIENCE)
        line.connect(f"/proc/self/fd/{log_fd}/{places.CONTROL}")
        for text, one in packets:
            socket.send_fds(line, [text], [] if one is None else [one.fileno()])
            if line.recv(64) != OK:
                return False
        return True
    return False


def control(log_fd: int) -> socket.socket:
    """The server's end: listening, for root alone. What a dead server left is replaced.

    To be called by the one that holds the lock of places.LOCK. Raises OSError.
    """
    with suppress(FileNotFoundError):
        os.unlink(places.CONTROL, dir_fd=log_fd)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.bind(f"/proc/self/fd/{log_fd}/{places.CONTROL}")
        os.chmod(places.CONTROL, 0o600, dir_fd=log_fd)
        made.listen(64)
    except BaseException:
        made.close()
        raise
    return made
