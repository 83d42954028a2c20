"""Values: where the sockets of dev/log and the files of `virt log serve` lie.

Domains are lower case and never begin with a dot, so no file of ours meets one's name.
"""

import os

SHARED = "log"
"""The one socket of `devlog = "shared"`, in the root (the HOWTO's /virtual/log)."""

FOLDER = ".virt/log"
"""The folder below the root that holds the sockets of `devlog = "own"`, by domain; 0700."""

DEV = "dev"
NAME = "log"
"""A tree's dev/log, in two steps: `dev` is opened by descriptor, `log` is what is linked there."""

CONTROL = ".control"
"""In FOLDER: the socket on which a running server takes the descriptors of new sockets."""

LOCK = ".server"
"""In FOLDER: locked by the one process that serves this root, and holding its pid."""

LOGS = "/var/log/virt"
COMBINED = "all.log"
DOMAINS = "domains"


def socket_file(domain: str) -> str:
    """A domain's own socket, relative to the root."""
    return f"{FOLDER}/{domain}"


def logs_folder(root: str, *, is_root: bool) -> str:
    """Where the files of a server are written unless it is told otherwise."""
    return LOGS if is_root and root == "/virtual" else os.path.join(root, ".virt", "logs")


def combined_log(folder: str) -> str:
    """The file that has the lines of all domains."""
    return os.path.join(folder, COMBINED)


def domain_log(folder: str, domain: str) -> str:
    """The file of one domain: NAME.log, or NAME~ where that would pass NAME_MAX (255)."""
    return os.path.join(folder, DOMAINS, log_name(domain))


def log_name(domain: str) -> str:
    return f"{domain}.log" if len(domain) <= 250 else f"{domain}~"


def logged_domain(file: str) -> str | None:
    """The domain whose log a file of that name is, or None (a rotated one, another's)."""
    for ending in ("~", ".log"):
        if file.endswith(ending):
            return file.removesuffix(ending)
    return None
