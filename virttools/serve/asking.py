"""Reader: what a running server says of itself."""

import _socket
import os

from virttools.errors import NeedsPrivilege

LOOK = b"look"
"""Whether a tree was moved away."""
RELOAD = b"reload"
LEAVE = b"leave "
"""With the name of a domain: not to serve it until a reload is asked for."""


def ask(path: str, wish: bytes = b"") -> bytes | None:
    """What the server at that socket says; None where none does. wish: what it is to do: LOOK, RELOAD, LEAVE."""
    folder, _, name = path.rpartition("/")
    try:
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except PermissionError as error:
        raise NeedsPrivilege(f"cannot open {folder}: {error.strerror}", hint="use sudo") from error
    except OSError:
        return None
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(10.0)
        connection.connect(f"/proc/self/fd/{folder_fd}/{name}")
        connection.sendall(wish)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
        return b"".join(parts) or None
    except PermissionError as error:
        raise NeedsPrivilege(f"cannot ask {path}: {error.strerror}", hint="use sudo") from error
    except OSError:
        return None
    finally:
        connection.close()
        os.close(folder_fd)
