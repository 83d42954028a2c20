"""Doer: a file of .virt by rename: the old one or the new one, on the disk too, whatever crashes."""

import os
from contextlib import suppress

from virttools.tree.root import Root

_TEMPORARY = "rewritten"


def rewrite(root: Root, name: str, content: bytes, *, dir_fd: int | None = None) -> None:
    """Replace a file of .virt, or of the folder of it given. Who calls holds `lock_all`. Raises OSError."""
    virt_fd = open_virt(root)
    try:
        with suppress(FileNotFoundError):  # what a crash left
            os.unlink(_TEMPORARY, dir_fd=virt_fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(_TEMPORARY, flags, 0o600, dir_fd=virt_fd), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        into_fd = virt_fd if dir_fd is None else dir_fd
        os.rename(_TEMPORARY, name, src_dir_fd=virt_fd, dst_dir_fd=into_fd)
        os.fsync(into_fd)
    finally:
        os.close(virt_fd)


def open_virt(root: Root) -> int:
    """.virt, which `open_root` found to be ours alone."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(".virt", flags, dir_fd=root.fd)
