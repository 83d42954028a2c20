"""Doer: remembers which domain each command was last used with, for the picker's `-` and its list.

`.virt/last/COMMAND/DOMAIN` is an empty file; its time is the last use. One utimensat(2), nothing to
be rewritten: no use is lost to another process or a crash, no reader meets half a state.
"""

import os

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
_MOST = 256
"""Commands that are remembered: whoever runs ever new ones shall not fill the disk."""


def remember(root: str, command: str, domain: str) -> None:
    """Note that command is used with domain now. A root that keeps no records remembers nothing.

    command: as it was asked for; the last part of its path counts. What cannot be noted is
    forgotten: it must not keep a command from running.
    """
    try:
        os.lstat(f"{root}/{domain}")
        folder_fd = _open(root, _name(command), make=True)
    except OSError:
        return
    try:
        fd = os.open(domain, _FILE, 0o600, dir_fd=folder_fd)
        os.utime(fd)
        os.close(fd)
    except OSError:
        pass  # a full disk, say
    finally:
        os.close(folder_fd)


def used(root: str, command: str) -> "dict[str, float]":
    """When command was last used with each domain: seconds since 1970 by name."""
    try:
        folder_fd = _open(root, _name(command), make=False)
    except OSError:
        return {}
    try:
        with os.scandir(folder_fd) as entries:
            return {entry.name: entry.stat(follow_symlinks=False).st_mtime for entry in entries}
    except OSError:
        return {}
    finally:
        os.close(folder_fd)


def latest(times: "dict[str, float]", names: "tuple[str, ...]") -> "str | None":
    """The one of names that was used last."""
    return max((name for name in names if name in times), key=times.__getitem__, default=None)


def forget(root: str, domain: str) -> None:
    """Forget that a domain was ever used: the next one of its name begins anew."""
    try:
        virt_fd = _open_virt(root)
    except OSError:
        return
    try:
        last_fd = os.open("last", _FOLDER, dir_fd=virt_fd)
    except OSError:
        return
    finally:
        os.close(virt_fd)
    try:
        for command in os.listdir(last_fd):
            _forget(last_fd, command, domain)
    finally:
        os.close(last_fd)


def _forget(last_fd: int, command: str, domain: str) -> None:
    try:
        folder_fd = os.open(command, _FOLDER, dir_fd=last_fd)
    except OSError:
        return
    try:
        os.unlink(domain, dir_fd=folder_fd)
    except OSError:
        pass  # it was never used with this one
    finally:
        os.close(folder_fd)


def _name(command: str) -> str:
    """A file name for a command; a leading dot is for nobody's use."""
    return command.rpartition("/")[2].lstrip(".")


def _open(root: str, name: str, *, make: bool) -> int:
    virt_fd = _open_virt(root)
    try:
        last_fd = _open_own(virt_fd, "last", make=make)
    finally:
        os.close(virt_fd)
    try:
        return _open_own(last_fd, name, make=make and len(os.listdir(last_fd)) < _MOST)
    finally:
        os.close(last_fd)


def _open_virt(root: str) -> int:
    """Raises OSError where it is missing or not ours alone."""
    virt_fd = os.open(f"{root}/.virt", _FOLDER)
    found = os.fstat(virt_fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(virt_fd)
        raise PermissionError(f"others may write {root}/.virt")
    return virt_fd


def _open_own(dir_fd: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=dir_fd)
    except FileNotFoundError:
        if not make:
            raise
    try:  # noqa: SIM105  contextlib would be loaded before every command
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        pass  # another process was quicker
    return os.open(name, _FOLDER, dir_fd=dir_fd)
