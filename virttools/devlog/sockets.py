"""Doer: binds a domain's own socket outside its tree, where nobody but root can meddle."""

import os
import socket
from contextlib import suppress
from hashlib import sha256

from virttools.devlog import handover
from virttools.errors import ApplyError, Busy
from virttools.tree.root import Root


def bind(root: Root, domain: str) -> socket.socket:
    """A new socket under the domain's name, writable by all; what had the name before is let go.

    The caller holds the domain's lock. Raises ApplyError.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        _bind(made, root.log_fd, domain)
    except OSError as error:
        made.close()
        raise ApplyError(
            f"cannot bind the log socket of {domain}: {error.strerror}",
            hint=f"look at the file system of {root.path}/.virt/log",
        ) from error
    return made


def _bind(made: socket.socket, log_fd: int, domain: str) -> None:
    # Through /proc: a path of the host would show in the tree by getpeername(2), and sun_path has
    # room for 107 bytes only. By another name first: a listener survives rename(2).
    temporary = f".new.{sha256(domain.encode()).hexdigest()[:24]}"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=log_fd)
    made.bind(f"/proc/self/fd/{log_fd}/{temporary}")
    os.chmod(temporary, 0o666, dir_fd=log_fd)  # noqa: S103  every user logs
    os.rename(temporary, domain, src_dir_fd=log_fd, dst_dir_fd=log_fd)


def forget(root: Root, domain: str) -> None:
    """Remove the socket of a domain that is gone, and tell a running server."""
    with suppress(FileNotFoundError):
        os.unlink(domain, dir_fd=root.log_fd)
        handover.drop(root.log_fd, [domain])


def sweep(root: Root) -> None:
    """Remove the sockets of domains that are not there: a crash of `create` or `remove` left them."""
    for name in os.listdir(root.log_fd):
        if name.startswith(".") or root.has(name):
            continue
        with suppress(Busy), root.lock(name):
            if not root.has(name):
                forget(root, name)
