"""Reader: which process holds a lock, and what a process calls itself.

Light enough for the fast ways.
"""

import os


def lock_holders(dir_fd: int, name: str) -> list[int]:
    """The processes that /proc/locks (proc(5)) names for that lock file; empty where unknown."""
    try:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        with open("/proc/locks", encoding="ascii") as lines:
            rows = [line.split() for line in lines]
    except OSError:
        return []
    major, minor = os.major(found.st_dev), os.minor(found.st_dev)
    place = f"{major:02x}:{minor:02x}:{found.st_ino}"
    return sorted(
        {int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == place and int(row[4]) > 0}
    )


def uids(pid: int) -> frozenset[int]:
    """The real, effective, saved and file system's uid of a process; none of one that has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            found = [line.split()[1:] for line in file if line.startswith(b"Uid:")]
    except OSError:
        return frozenset()
    return frozenset(int(word) for words in found for word in words)


def command_name(pid: int) -> str:
    """What a process calls itself, made safe to print."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().rstrip(b"\n").decode(errors="replace")
    except OSError:
        return "gone"
    return name if name.isprintable() else ascii(name)
