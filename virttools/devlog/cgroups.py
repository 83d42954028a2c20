"""Reader: the cgroups (v2) of domains, `virt/DOMAIN`: the kernel knows a process's, even when it ended."""

import os
from collections.abc import Iterator
from contextlib import suppress

FOLDER = "virt"


def mount_point(mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """Where the cgroup v2 hierarchy is mounted, or None."""
    with suppress(OSError), open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields, _, kind = line.partition(" - ")
            if kind.startswith("cgroup2 "):
                return fields.split(" ")[4]
    return None


def known(mount: str) -> Iterator[tuple[int, str]]:
    """The id (inode number) of every domain's cgroup and of those below it, with the domain."""
    top = os.path.join(mount, FOLDER)
    try:
        domains = os.listdir(top)
    except OSError:
        return
    for domain in domains:
        for folder, _, _ in os.walk(os.path.join(top, domain)):
            with suppress(OSError):
                yield os.stat(folder).st_ino, domain
