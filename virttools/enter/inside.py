"""Reads what lies in trees, which may be hostile ground: by descriptor, links kept inside."""

import os
import stat

from virttools import linux
from virttools.errors import EnterError, NeedsPrivilege

_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_RESOLVE = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS


def is_domain(name: str) -> bool:
    """Whether a folder of that name can be a tree: the letters-digits-hyphen rule of RFC 1123."""
    return len(name) <= 253 and all(
        0 < len(label) <= 63 and set(label) <= _LABEL and "-" not in (label[0], label[-1])
        for label in name.split(".")
    )


def domains(root: str) -> list[str]:
    """The names in root that are trees, sorted. Raises EnterError where root cannot be read."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name
                for entry in entries
                if is_domain(entry.name) and entry.is_dir(follow_symlinks=False)
            )
    except OSError as error:
        raise _no_root(root, error) from error


def open_tree(root: str, domain: str) -> int:
    """Open root/domain as a descriptor to enter by.

    Raises EnterError where there is no such domain, NeedsPrivilege where others can write there.
    """
    try:
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise _no_root(root, error) from error
    try:
        check_owner(root_fd, root)
        tree_fd = linux.openat2(
            root_fd, domain, os.O_PATH | os.O_DIRECTORY, linux.RESOLVE_NO_SYMLINKS
        )
    except OSError as error:
        raise _no_domain(root, domain) from error
    finally:
        os.close(root_fd)
    check_owner(tree_fd, f"{root}/{domain}")
    return tree_fd


def check_owner(fd: int, path: str) -> None:
    """Raise NeedsPrivilege unless the folder is root's and no one else can write it."""
    found = os.fstat(fd)
    if found.st_uid == 0 and not found.st_mode & 0o022:
        return
    mode = stat.S_IMODE(found.st_mode)
    raise NeedsPrivilege(
        f"cannot trust {path}: others may change it (owner {found.st_uid}, mode {mode:04o})",
        hint=f"`chown root {path}` and `chmod go-w {path}`, once you know what is in it",
    )


def look(tree_fd: int, path: str) -> int:
    """Open what path means inside the tree, as O_PATH: nothing is triggered by it, whatever it is.

    Raises OSError.
    """
    return linux.openat2(tree_fd, path, os.O_PATH, _RESOLVE)


def real_path(tree_fd: int, path: str) -> str:
    """Where path, every link followed inside the tree, lies in it: absolute as from inside.

    Raises OSError.
    """
    seen_fd = look(tree_fd, path)
    try:
        tree = os.readlink(f"/proc/self/fd/{tree_fd}")
        found = os.readlink(f"/proc/self/fd/{seen_fd}")
    finally:
        os.close(seen_fd)
    return found[len(tree.rstrip("/")) :]


def status(tree_fd: int, path: str) -> os.stat_result | None:
    """What path means inside the tree; None where there is nothing."""
    try:
        seen_fd = look(tree_fd, path)
    except OSError:
        return None
    try:
        return os.fstat(seen_fd)
    finally:
        os.close(seen_fd)


def open_folder(tree_fd: int, path: str | bytes) -> int:
    """A folder, found as from inside, through no magic link. Raises OSError."""
    return linux.openat2(tree_fd, path, os.O_PATH | os.O_DIRECTORY, _RESOLVE)


def is_folder(tree_fd: int, path: str) -> bool:
    """Whether path, resolved inside the tree, is a folder."""
    try:
        os.close(open_folder(tree_fd, path))
    except OSError:
        return False
    return True


def read(tree_fd: int, path: str, limit: int) -> bytes | None:
    """At most limit bytes of a regular file of the tree; None where there is none.

    A device or fifo that was planted there is never opened: it is looked at first, and then only
    that same inode is reopened through /proc/self/fd (proc(5)).
    """
    try:
        seen_fd = look(tree_fd, path)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(seen_fd).st_mode):
            return None
        return _content(seen_fd, limit)
    except OSError:
        return None
    finally:
        os.close(seen_fd)


def _content(seen_fd: int, limit: int) -> bytes:
    fd = os.open(f"/proc/self/fd/{seen_fd}", os.O_RDONLY)
    try:
        parts = []
        while limit > 0 and (part := os.read(fd, limit)):
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _no_domain(root: str, domain: str) -> EnterError:
    from difflib import get_close_matches

    near = get_close_matches(domain, domains(root), n=1)
    return EnterError(
        f"cannot enter {domain}: there is no such domain in {root}",
        hint=f"did you mean {near[0]}?"
        if near
        else "`virt list` names the domains, `virt create` makes one",
    )


def _no_root(root: str, error: OSError) -> EnterError:
    return EnterError(
        f"cannot open {root}: {error.strerror}",
        hint="--root or VIRT_ROOT names the folder of the trees; `virt create` makes it",
    )
