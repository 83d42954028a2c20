"""Reader: who uses a tree, by device and inode, never by a path's text (DESIGN 7.8)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from virttools.tree.processes import command_name


@dataclass(frozen=True, slots=True)
class _Mount:
    """A line of mountinfo (proc(5)). root: what of the file system is mounted; point: where."""

    id: int
    parent: int
    device: str
    root: str
    point: str


def processes_in(tree_fd: int) -> tuple[str, ...]:
    """Processes whose root or working directory is the tree or in it, as "process 1 (init)"."""
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    return tuple(told(pid) for pid in pids if is_in(pid, tree_fd))


def is_in(pid: int, tree_fd: int) -> bool:
    tree = _identity(os.fstat(tree_fd))
    return any(_is_below(f"/proc/{pid}/{link}", tree) for link in ("root", "cwd"))


def told(pid: int) -> str:
    return f"process {pid} ({command_name(pid)})"


def _is_below(path: str, tree: tuple[int, int]) -> bool:
    """Whether the folder that path opens, or one above it, is the tree."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False  # it ended, is a kernel thread, or not ours to see
    try:
        here = _identity(os.fstat(fd))
        while here != tree:
            above_fd = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = above_fd
            above = _identity(os.fstat(fd))
            if above == here:
                return False
            here = above
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def mounts_of(tree_fd: int) -> tuple[str, ...]:
    """What is mounted on or below the tree, or from it elsewhere, in any mount namespace.

    Decided by the place within the file system: the same in every namespace and bind mount.
    """
    place = _place(tree_fd)
    if place is None:
        return ()
    found: dict[str, None] = {}
    for mounts in _namespaces():
        by_id = {mount.id: mount for mount in mounts}
        for mount in mounts:
            said = _use(mount, by_id.get(mount.parent), place)
            if said is not None:
                found[said] = None
    return tuple(found)


def mount_points() -> tuple[str, ...]:
    """Where something is mounted, as this process sees it."""
    return tuple(mount.point for mount in _read_mounts("/proc/self/mountinfo"))


def _use(mount: _Mount, parent: _Mount | None, place: tuple[str, str]) -> str | None:
    if parent is not None and parent is not mount and parent.device == place[0]:
        inner = os.path.relpath(mount.point, parent.point)
        point = os.path.normpath(os.path.join(parent.root, inner))
        if is_within(point, place[1]):
            return f"a mount at {_shown(mount.point)}"
    if mount.device == place[0] and is_within(mount.root, place[1]):
        return f"a mount of it at {_shown(mount.point)}"
    return None


def is_within(path: str, folder: str) -> bool:
    """Whether a place that the kernel names is that folder or below it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _place(tree_fd: int) -> tuple[str, str] | None:
    """The tree as (device of mountinfo, path within that file system)."""
    with open(f"/proc/self/fdinfo/{tree_fd}", encoding="ascii") as lines:
        ids = [int(line.split()[1]) for line in lines if line.startswith("mnt_id:")]
    path = os.readlink(f"/proc/self/fd/{tree_fd}")
    for mount in _read_mounts("/proc/self/mountinfo"):
        if mount.id in ids:
            inner = os.path.relpath(path, mount.point)
            return mount.device, os.path.normpath(os.path.join(mount.root, inner))
    return None


def _namespaces() -> Iterator[tuple[_Mount, ...]]:
    """The mounts of each mount namespace, by one process that lives in it; of ours first."""
    seen: set[tuple[tuple[int, int], tuple[int, int]]] = set()
    for pid in ("self", *(name for name in os.listdir("/proc") if name.isdigit())):
        with suppress(OSError):
            # mountinfo shows what can be reached from a process's root: two roots, two views.
            view = (
                _identity(os.stat(f"/proc/{pid}/ns/mnt")),
                _identity(os.stat(f"/proc/{pid}/root")),
            )
            if view not in seen:
                seen.add(view)
                yield tuple(_read_mounts(f"/proc/{pid}/mountinfo"))


def _read_mounts(path: str) -> Iterator[_Mount]:
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ")
            yield _Mount(int(words[0]), int(words[1]), words[2], _plain(words[3]), _plain(words[4]))


def _plain(text: str) -> str:
    """What a word of mountinfo means: it writes blanks and backslashes as octal."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)
