"""What all domains declare to be served, and the routes files of virtuald that say so."""

import os
from dataclasses import dataclass

from virttools.errors import ConfigError, UnknownDomain
from virttools.manifest.load import reload
from virttools.serve import services
from virttools.serve.services import Declared, Resident
from virttools.tree.root import Root, open_root


@dataclass(frozen=True, slots=True)
class Synced:
    """The routes files that were written, those that are no longer needed and went, and the others."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Whole:
    """The services and the daemons of every domain."""

    services: tuple[Declared, ...] = ()
    daemons: tuple[Resident, ...] = ()


def declared(root_path: str) -> Whole:
    """What every domain declares, as its manifest was when it was built."""
    try:
        root = open_root(root_path)
    except UnknownDomain:  # none was ever made
        return Whole()
    with root:
        every = [(name, reload(root.read_layers(name))) for name in root.domains()]
    return Whole(
        tuple(one for name, manifest in every for one in services.declared(name, manifest)),
        tuple(one for name, manifest in every for one in services.residents(name, manifest)),
    )


def _declared(root: Root) -> tuple[Declared, ...]:
    return tuple(
        one
        for name in root.domains()
        for one in services.declared(name, reload(root.read_layers(name)))
    )


def sync(root_path: str) -> Synced:
    """Write `conf.SERVICE` for each service that a domain declares, all or none, each by one rename.

    Raises ConfigError where one is there that somebody else wrote.
    """
    with open_root(root_path) as root, root.lock_all():
        wanted, there = _compared(root)
        foreign = [name for name in wanted if not is_ours(there.get(name, services.MARK))]
        if foreign:
            raise ConfigError(
                f"cannot write {root.path}/{foreign[0]}: it was written by hand",
                hint=f"move it away, or make its first line `{services.MARK}`",
            )
        written = [name for name in sorted(wanted) if there.get(name) != wanted[name]]
        for name in written:
            _write(root.fd, name, wanted[name].encode())
        removed = [name for name, text in there.items() if name not in wanted and is_ours(text)]
        for name in removed:
            os.unlink(name, dir_fd=root.fd)
        unchanged = tuple(name for name in sorted(wanted) if name not in written)
        return Synced(tuple(written), tuple(removed), unchanged)


def due(root: Root) -> tuple[str, ...]:
    """The files that `sync` would write or remove, but for those that somebody else wrote."""
    wanted, there = _compared(root)
    return tuple(
        name
        for name in sorted({*wanted, *there})
        if wanted.get(name) != there.get(name) and is_ours(there.get(name, services.MARK))
    )


def _compared(root: Root) -> tuple[dict[str, str], dict[str, str]]:
    """What the routes files must say, and what they do say, by name."""
    wanted = services.routes(_declared(root), root.path)
    names = sorted(name for name in os.listdir(root.fd) if name.startswith("conf."))
    return wanted, {name: _read(root.fd, name) for name in names}


def is_ours(text: str) -> bool:
    return text.startswith(services.MARK)


def _read(root_fd: int, name: str) -> str:
    """What a routes file says, or "" where it is none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(name, flags, dir_fd=root_fd), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(root_fd: int, name: str, content: bytes) -> None:
    """Beside it, then renamed over it: a connection meanwhile reads the old file or the new one."""
    beside = f".{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(beside, flags, 0o600, dir_fd=root_fd), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    os.rename(beside, name, src_dir_fd=root_fd, dst_dir_fd=root_fd)
