"""Opens binaries and loader files of a host, or of a file system below a root, memoised.

Paths are as seen inside the root. There the kernel resolves them (RESOLVE_IN_ROOT), never we.
"""

import os
import stat

from virttools.host import elf
from virttools.host.elf import Elf

_READ_LIMIT = 1 << 24
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Binaries:
    """The files of this host."""

    __slots__ = ("_elves", "_folders", "_real_folders")

    def __init__(self) -> None:
        self._elves: dict[str, Elf | None] = {}
        self._folders: dict[str, bool] = {}
        self._real_folders: dict[str, str] = {}

    def elf(self, path: str) -> Elf | None:
        """The headers of what `path` leads to; None where that is no ELF file we can read."""
        try:
            return self._elves[path]
        except KeyError:
            pass
        try:
            found = self.read_elf(path)
        except (OSError, ValueError):
            found = None
        self._elves[path] = found
        return found

    def read_elf(self, path: str) -> Elf | None:
        """As `elf`, but raises OSError where the file can't be read, and forgets."""
        return elf.read(path)

    def has_folder(self, path: str) -> bool:
        found = self._folders.get(path)
        if found is None:
            found = self._folders[path] = self._is_folder(path)
        return found

    def _is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def real(self, path: str) -> str:
        """The path without links. Raises OSError where it leads nowhere."""
        folder, _, name = path.rpartition("/")
        if not folder or name in ("", ".", ".."):
            return os.path.realpath(path, strict=True)
        parent = self._real_folders.get(folder)
        if parent is None:
            parent = self._real_folders[folder] = os.path.realpath(folder).rstrip("/")
        joined = f"{parent}/{name}"
        return os.path.realpath(joined, strict=True) if os.path.islink(joined) else joined

    def open(self, path: str) -> int:
        """A descriptor of the regular file there. Raises OSError."""
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(22, "not a regular file", path)
        return os.open(path, _FLAGS)

    def content(self, path: str) -> bytes:
        """What the file holds, up to 16 MB; b"" where it can't be read."""
        try:
            fd = self.open(path)
        except OSError:
            return b""
        try:
            return os.pread(fd, _READ_LIMIT, 0)
        except OSError:
            return b""
        finally:
            os.close(fd)


class RootedBinaries(Binaries):
    """The files below a folder, as a process with that root would see them."""

    __slots__ = ("_root",)

    def __init__(self, root: str) -> None:
        super().__init__()
        self._root = os.path.realpath(root)

    def read_elf(self, path: str) -> Elf | None:
        fd = self._resolve(path, os.O_PATH)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        fd = self._resolve(path, _FLAGS)
        try:
            return elf.parse(fd, (status.st_dev, status.st_ino))
        finally:
            os.close(fd)

    def _is_folder(self, path: str) -> bool:
        try:
            os.close(self._resolve(path, os.O_PATH | os.O_DIRECTORY))
        except (OSError, ValueError):
            return False
        return True

    def real(self, path: str) -> str:
        fd = self._resolve(path, os.O_PATH)
        try:
            full = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return full[len(self._root.rstrip("/")) :] or "/"

    def open(self, path: str) -> int:
        fd = self._resolve(path, os.O_PATH)
        try:
            is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
        if not is_regular:
            raise OSError(22, "not a regular file", path)
        return self._resolve(path, _FLAGS)

    def _resolve(self, path: str, flags: int) -> int:
        from virttools import linux

        if "\0" in path:
            raise ValueError("embedded null byte")
        root_fd = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            rules = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
            return linux.openat2(root_fd, path, flags, rules)
        finally:
            os.close(root_fd)
