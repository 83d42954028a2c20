"""Doer: the folder that holds the trees, and its .virt: checked first, then used by descriptor.

Light enough for the fast ways: records are decoded and names compared only where asked for.
"""

import os
import stat
from errno import EACCES, ELOOP, ENOTDIR, EPERM

from virttools import linux
from virttools.errors import ConfigError, NeedsPrivilege, UnknownDomain
from virttools.tree.ground import open_checked
from virttools.tree.locks import Lock, Locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from virttools.manifest.model import Layer
    from virttools.tree.record import Head, Record

_FOLDERS = ("records", "store", "staging", "locks", "log")
# No domain begins with a dot.
_EVERYTHING = ".all"
_STORE = ".store"
_CREATE_HINT = "make one: virt create domain1.com"


def open_root(path: str, *, make: bool = False) -> "Root":
    """Open the root of all trees for a `with`; make: create what is missing.

    Raises NeedsPrivilege where somebody else could change it or what leads to it, UnknownDomain
    where it is not there, ConfigError where it is no folder.
    """
    try:
        root_fd = open_checked(path, make=make)
        try:
            folders = _open_virt(root_fd, path, make=make)
        except BaseException:
            os.close(root_fd)
            raise
    except OSError as error:
        raise _refusal(path, error) from error
    return Root(os.path.abspath(path), root_fd, folders)


class Root:
    """An open root: a descriptor for it and for each folder of .virt; the `with` closes them."""

    __slots__ = (
        "_locks",
        "fd",
        "locks_fd",
        "log_fd",
        "path",
        "records_fd",
        "staging_fd",
        "store_fd",
    )

    def __init__(self, path: str, fd: int, folders: dict[str, int]) -> None:
        self.path = path
        self.fd = fd
        self.records_fd = folders["records"]
        self.store_fd = folders["store"]
        self.staging_fd = folders["staging"]
        self.locks_fd = folders["locks"]
        self.log_fd = folders["log"]
        self._locks = Locks(self.locks_fd, self.has)

    def __enter__(self) -> "Root":  # noqa: PYI034  Self would load typing
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (
            self.fd,
            self.records_fd,
            self.store_fd,
            self.staging_fd,
            self.locks_fd,
            self.log_fd,
        ):
            os.close(fd)

    def domains(self) -> tuple[str, ...]:
        """The whole ones, sorted: those with a tree and a record."""
        recorded = set(self.recorded())
        with os.scandir(self.fd) as entries:
            return tuple(
                sorted(
                    entry.name
                    for entry in entries
                    if entry.name in recorded and entry.is_dir(follow_symlinks=False)
                )
            )

    def recorded(self) -> tuple[str, ...]:
        """The names that have a record, with or without a tree."""
        return tuple(_recorded_name(file) for file in os.listdir(self.records_fd))

    def has(self, name: str) -> bool:
        """Whether there is a whole domain of that name."""
        return self.has_tree(name) and self._has_record(name)

    def has_tree(self, name: str) -> bool:
        """Whether a folder of that name lies in the root, with a record or without."""
        found = self.look(name)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def look(self, name: str) -> os.stat_result | None:
        """What lies at that name in the root, or None."""
        if not _is_plain(name):
            return None
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _has_record(self, name: str) -> bool:
        try:
            found = os.stat(record_file(name), dir_fd=self.records_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode)

    def open_tree(self, name: str) -> "OpenFolder":
        """The tree's descriptor, for a `with`. Raises UnknownDomain."""
        self.require(name, "open")
        flags = os.O_RDONLY | os.O_DIRECTORY
        resolve = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS
        return OpenFolder(linux.openat2(self.fd, name, flags, resolve))

    def read_record(self, name: str) -> "Record":
        """What was built. Raises UnknownDomain, ApplyError where the record is damaged."""
        from virttools.tree.record import decode

        self.require(name, "read the record of")
        with open(self._open_record(name), "rb") as file:
            return decode(file.read(), f"the record of {name}")

    def heads(self) -> "tuple[Head, ...]":
        """The head of every domain's record, by name. Raises ApplyError where one is damaged."""
        found = []
        for name in self.domains():
            try:
                found.append(self.head(name))
            except FileNotFoundError:  # removed just now
                continue
        return tuple(found)

    def head(self, name: str) -> "Head":
        """The head of a whole domain's record. Raises ApplyError where it is damaged."""
        from virttools.tree.record import head

        with open(self._open_record(name), "rb") as file:
            return head(file.readline(), f"the record of {name}")

    def read_layers(self, name: str) -> "tuple[Layer, ...]":
        """The manifest a domain was built from, without what was built. Raises as `read_record`."""
        from virttools.tree.record import layers

        self.require(name, "read the record of")
        with open(self._open_record(name), "rb") as file:
            return layers(file.readline(), f"the record of {name}")

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """The addresses of every domain, by its name."""
        return {head.domain: head.addresses for head in self.heads()}

    def _open_record(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(record_file(name), flags, dir_fd=self.records_fd)

    def require(self, name: str, verb: str) -> None:
        """Raise UnknownDomain, with the name that may be meant, unless the domain is there."""
        if self.has(name):
            return
        from difflib import get_close_matches

        domains = self.domains()
        near = get_close_matches(name, domains, n=1)
        hint = f"did you mean {near[0]}?" if near else "`virt list` names those that are there"
        raise UnknownDomain(
            f"cannot {verb} {name}: there is no such domain below {self.path}",
            hint=hint if domains else _CREATE_HINT,
        )

    def lock(self, name: str, *, shared: bool = False) -> "Lock":
        """Hold a domain for a `with`: one writer or many readers. Raises Busy at once, naming who.

        Within one Root it may be taken again below itself. A domain that is gone takes its lock
        file along.
        """
        if not _is_plain(name):
            self.require(name, "lock")
        return Lock(self._locks, name, shared=shared)

    def lock_all(self) -> "Lock":
        """Hold what all domains share (store index, addresses) for a `with`; waits."""
        return Lock(self._locks, _EVERYTHING, wait=True)

    def lock_store(self, *, shared: bool) -> "Lock":
        """Builders share the store; who throws things out holds it alone, or meets Busy."""
        return Lock(self._locks, _STORE, shared=shared, wait=shared)


class OpenFolder:
    """A folder's descriptor, closed at the end of a `with`."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def record_file(name: str) -> str:
    """The name of a domain's record: NAME.json, or NAME~ where that would pass NAME_MAX (255)."""
    return f"{name}.json" if len(name) <= 250 else f"{name}~"


def _recorded_name(file: str) -> str:
    return file.removesuffix("~") if file.endswith("~") else file.removesuffix(".json")


def _is_plain(name: str) -> bool:
    return name != "" and not name.startswith(".") and "/" not in name and "\0" not in name


def _open_virt(root_fd: int, path: str, *, make: bool) -> dict[str, int]:
    """Open .virt and its folders; what is missing in a .virt of ours is made."""
    virt_fd = _open_own(root_fd, ".virt", f"{path}/.virt", make=make)
    found: dict[str, int] = {}
    try:
        _refuse_other_disk(virt_fd, root_fd, path)
        for name in _FOLDERS:
            found[name] = _open_own(virt_fd, name, f"{path}/.virt/{name}", make=True)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    finally:
        os.close(virt_fd)
    return found


def _refuse_other_disk(virt_fd: int, root_fd: int, path: str) -> None:
    if os.fstat(virt_fd).st_dev != os.fstat(root_fd).st_dev:
        raise ConfigError(
            f"cannot use {path}: {path}/.virt lies on another file system",
            hint="trees are published by rename: keep both on one file system",
        )


def _open_own(dir_fd: int, name: str, where: str, *, make: bool) -> int:
    """Open a folder that must be ours alone: 0700, and no link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except FileNotFoundError:
        if not make:
            raise
        _make_own(dir_fd, name)
        fd = os.open(name, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (ELOOP, ENOTDIR):
            raise NeedsPrivilege(
                f"cannot use {where}: it is not a folder, or a link to one",
                hint="somebody put it there: look what it is, and move it away",
            ) from error
        raise
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        os.close(fd)
        raise NeedsPrivilege(
            f"cannot use {where}: it belongs to user {found.st_uid} and has mode "
            f"{stat.S_IMODE(found.st_mode):04o}, it must be 0700 and of user {os.geteuid()}",
            hint=f"look what is in it; if it is yours: chmod 0700 {where}",
        )
    return fd


def _make_own(dir_fd: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        return  # another process was quicker
    # A set-group-id bit, and modes by a default ACL, come from the folder above.
    os.chmod(name, 0o700, dir_fd=dir_fd)


def _refusal(path: str, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError):
        return UnknownDomain(f"cannot open {path}: there are no domains yet", hint=_CREATE_HINT)
    if error.errno in (EACCES, EPERM):
        return NeedsPrivilege(
            f"cannot open {path}: {error.strerror}",
            hint="run it as root, or name a root of your own with --root",
        )
    return ConfigError(
        f"cannot open {path}: {error.strerror}",
        hint="--root, VIRT_ROOT or virt.toml name the folder of the trees",
    )
