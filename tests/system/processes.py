"""Other processes, as proc(5) shows them; any of them may end while it is looked at."""

import os
from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """The children of a process, the oldest first; none of one that has ended."""
    found: list[int] = []
    with suppress(OSError):
        for task in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                found += map(int, text.split())
    return found


def below(pid: int) -> list[int]:
    """All descendants of a process, each after its parent."""
    return [found for child in children(pid) for found in (child, *below(child))]


def name(pid: int) -> str:
    """What a process runs; "" of one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def state(pid: int) -> str:
    """R, S, T and so on; "" of one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    return ""


def words(pid: int) -> list[str]:
    """Its command line; none of one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def every() -> list[int]:
    """All processes that there are."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def open_files(pid: int) -> list[str]:
    """What each descriptor of a process is; one that it closes meanwhile is left out."""
    found = []
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def resident(pid: int) -> int:
    """The kilobytes that are a process's own: of files that it maps, as many are there as the machine has room for."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nRssAnon:")[2].split()[0])
