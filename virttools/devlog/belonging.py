"""Doer: puts this process into its domain's cgroup, by which the receiver knows whose it is.

Light: `virt exec` loads it where there is a shared socket.
"""

import os

from virttools.devlog import cgroups

_TRIES = 5


def join(domain: str) -> None:
    """From now on what this process and its children send is the domain's; where it cannot be, unknown."""
    mount = cgroups.mount_point()
    if mount is None:
        return
    folder = os.path.join(mount, cgroups.FOLDER, domain)
    for _ in range(_TRIES):
        try:
            os.makedirs(folder, 0o755, exist_ok=True)
            with open(os.path.join(folder, "cgroup.procs"), "wb", buffering=0) as file:
                file.write(b"0")
        except FileNotFoundError:
            continue  # the last domain that was there has gone at this moment, and the folder with it
        except OSError:
            return  # read-only, or somebody else's to order
        else:
            return


def forget(domain: str) -> None:
    """Remove the cgroup of a domain that is gone, unless something still runs in it."""
    mount = cgroups.mount_point()
    if mount is None:
        return
    top = os.path.join(mount, cgroups.FOLDER)
    for folder in (os.path.join(top, domain), top):
        try:
            os.rmdir(folder)
        except OSError:
            return  # never made, or in use
