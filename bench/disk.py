"""Fresh file systems to measure on: what was deleted lately slows ext4 down 4 to 10 times."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def leave_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):
        raise OSError(ctypes.get_errno(), "unshare")


@contextmanager
def disk(scratch: Path, name: str = "disk") -> Iterator[str]:
    """A fresh ext4 in a file, mounted below /mnt, whose parents only root may write (jailkit asks)."""
    image = scratch / name
    with open(image, "wb") as file_:
        file_.truncate(6 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image], check=True)
    base = "/mnt" if name == "source" else "/media"
    subprocess.run(["mount", "-o", "loop", image, base], check=True)
    try:
        yield base
    finally:
        subprocess.run(["umount", base], check=True)
        image.unlink()


def used(top: str) -> int:
    found = os.statvfs(top)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
