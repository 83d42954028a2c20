"""Roots and plans for the tests of tree/: real files of this test's own, in mounts nobody else sees."""

import ctypes
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virttools.host.facts import Why
from virttools.manifest.model import Layer, Origin
from virttools.tree import apply, publish
from virttools.tree.actions import Action, CopyFile, MakeDir, MakeSymlink, Plan, WriteFile
from virttools.tree.apply import Built
from virttools.tree.record import Record
from virttools.tree.root import Root

WHY = Why("files", None, Origin("test.toml", 1))

_CLONE_NEWNS = 0x20000
_MS_REC_PRIVATE = 0x4000 | 0x40000


def leave_mounts() -> None:
    """From here on this process mounts for itself alone; all of it goes when the process does.

    Call it before opening what is to see those mounts: a descriptor stays in the mounts it is of.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def mounted(target: Path, *words: str) -> Iterator[None]:
    """Mount with these words for mount(8) at target, which is made if need be."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *words, str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def folder(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> MakeDir:
    return MakeDir(path=path, mode=mode, uid=uid, gid=gid, why=WHY)


def text(path: str, content: bytes = b"text\n", mode: int = 0o644) -> WriteFile:
    return WriteFile(path=path, content=content, mode=mode, uid=0, gid=0, source="test.j2", why=WHY)


def symlink(path: str, target: str) -> MakeSymlink:
    return MakeSymlink(path=path, target=target, package=None, why=WHY)


def copy(
    path: str,
    source: Path,
    *,
    share: bool = False,
    reflink: bool = False,
    mode: int | None = None,
    uid: int = 0,
    gid: int = 0,
    xattrs: tuple[tuple[str, bytes], ...] = (),
    md5: str | None = None,
) -> CopyFile:
    """The action for a host file as it is at this moment."""
    found = source.stat()
    return CopyFile(
        path=path,
        source=source,
        mode=stat.S_IMODE(found.st_mode) if mode is None else mode,
        uid=uid,
        gid=gid,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        identity=(
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        ),
        xattrs=xattrs,
        share=share,
        reflink=reflink,
        package=None,
        md5=md5,
        why=WHY,
    )


def plan(domain: str, *actions: Action) -> Plan:
    return Plan(domain=domain, actions=actions)


def record(built: Built) -> Record:
    return Record(
        domain=built.plan.domain,
        layers=(Layer("test.toml", "binaries = []\n"),),
        addresses=(),
        profiles=("base",),
        entries=built.entries,
    )


def create(root: Root, *plans: Plan) -> None:
    """Build and publish these domains."""
    with apply.building(root, plans) as builts:
        publish.publish(root, [(built, record(built)) for built in builts])


def describe(tree: Path) -> dict[str, str]:
    """Every path of a tree: type, mode, owner, and what it holds or points to."""
    found = {}
    for path in sorted(tree.rglob("*")):
        at = path.lstat()
        said = f"{stat.filemode(at.st_mode)} {at.st_uid}:{at.st_gid}"
        if stat.S_ISREG(at.st_mode):
            said += f" {path.read_bytes()[:40]!r}"
        elif stat.S_ISLNK(at.st_mode):
            said += f" {path.readlink()}"
        elif stat.S_ISCHR(at.st_mode) or stat.S_ISBLK(at.st_mode):
            said += f" {os.major(at.st_rdev)},{os.minor(at.st_rdev)}"
        found[f"/{path.relative_to(tree)}"] = said
    return found


def leftovers(root: Root) -> list[str]:
    """What lies in staging."""
    return sorted(os.listdir(root.staging_fd))
