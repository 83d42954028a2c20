"""Doer: the symlinks virtNAME beside `virt`; nothing that is not ours is replaced or removed.

What a link runs is told by the link alone: `virtpasswd -> virt` runs passwd, and
`virtnewuser -> .virt/useradd -> ../virt` runs useradd. One readlink(2) tells, one symlink(2) or
unlink(2) makes or ends it: there is no second place that a crash or a move could leave behind.
"""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass

from virttools.errors import ApplyError, CheckFailed, DomainExists, NeedsPrivilege, UsageError

FOLDER = ".virt"
"""Beside the links: one link for each program that is run by another name."""

_RESERVED = ("fs", "exec", "uald")
_OWN_NAMES = ("virt", "virtexec", "virtfs", "virtuald")


@dataclass(frozen=True, slots=True)
class Link:
    """A name and the program it runs. state: "ok", "broken", or "foreign"; target: as in the link."""

    name: str
    program: str
    state: str = "ok"
    target: str = ""


def read(word: str) -> Link:
    """NAME or NAME=PROGRAM. Raises UsageError where a name is reserved or can be none."""
    name, has_program, program = word.partition("=")
    for part in (name, program) if has_program else (name,):
        if not _is_name(part):
            raise UsageError(
                f"cannot link {word!r}: {part!r} is no name of a program",
                hint="a name has no slash, no blank and no leading hyphen or dot: virt link vi",
            )
    if name in _RESERVED:
        raise UsageError(
            f"cannot link {name}: virt{name} is a command of its own", hint="choose another name"
        )
    return Link(name, program if has_program else name)


def _is_name(name: str) -> bool:
    is_plain = name.isprintable() and not any(letter in name for letter in "/= ")
    return is_plain and 0 < len(os.fsencode(name)) <= 251 and name[0] not in "-."


class Bin:
    """A folder for links to one `virt`, locked while in use, for a `with`.

    Raises ApplyError where the folder or virt is not there, NeedsPrivilege where it may not be
    changed.
    """

    __slots__ = ("_fd", "_own", "_virt", "path")

    def __init__(self, path: str, virt: str) -> None:
        self.path = path
        self._virt = virt
        folder = os.path.dirname(virt)
        found = [_seen(os.path.join(folder, name)) for name in _OWN_NAMES]
        self._own = {place for place in found if place is not None}
        if _seen(virt) is None:
            raise ApplyError(f"cannot make links to {virt}: it is not there")
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ApplyError(
                f"cannot open {path}: {error.strerror}", hint="--bindir names a folder of your PATH"
            ) from error

    def __enter__(self) -> "Bin":  # noqa: PYI034  Self is of no use to a class without heirs
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def links(self) -> tuple[Link, ...]:
        """Everything in the folder that is called virtNAME, sorted."""
        files = [file for file in os.listdir(self._fd) if file.startswith("virt")]
        names = [name for file in files if _is_name(name := file[4:]) and name not in _RESERVED]
        return tuple(self._look(name) for name in sorted(names))

    def make(self, wanted: Sequence[Link]) -> list[Link]:
        """Make the links that are not there already, and return them; none if one cannot be.

        Raises DomainExists where something else has that name, NeedsPrivilege, ApplyError.
        """
        there = {link.name: link for link in self.links()}
        missing = []
        for link in wanted:
            found = there.get(link.name)
            if found is None:
                missing.append(link)
            elif (found.state, found.program) != ("ok", link.program):
                raise self._taken(found)
            there[link.name] = link
        for link in missing:
            self._make(link)
        return missing

    def remove(self, names: Sequence[str]) -> None:
        """Remove links of ours; none if one is not.

        Raises CheckFailed where there is no such link, DomainExists where it is not ours.
        """
        there = {link.name: link for link in self.links()}
        for name in names:
            if name not in there:
                raise CheckFailed(
                    f"cannot unlink {name}: there is no {self.path}/virt{name}",
                    hint="`virt links` names those that are there",
                )
            if there[name].state != "ok":
                raise DomainExists(
                    f"cannot unlink {name}: {self.path}/virt{name} is not ours "
                    f"({_told(there[name])})",
                    hint="look what it is, and remove it yourself",
                )
        for name in dict.fromkeys(names):
            self._remove(there[name])

    def _make(self, link: Link) -> None:
        file = f"virt{link.name}"
        try:
            target = self._target()
            if link.program != link.name:
                target = self._make_program(link.program, target)
            # symlink(2) is atomic by itself, and never replaces what is there.
            os.symlink(target, file, dir_fd=self._fd)
        except OSError as error:
            raise self._failure("make", file, error) from error

    def _remove(self, link: Link) -> None:
        file = f"virt{link.name}"
        try:
            os.unlink(file, dir_fd=self._fd)
            if link.target.startswith(f"{FOLDER}/"):
                self._drop_program(link.program)
        except OSError as error:
            raise self._failure("remove", file, error) from error

    def _look(self, name: str) -> Link:
        file = f"virt{name}"
        try:
            target = os.readlink(file, dir_fd=self._fd)
        except OSError:
            return Link(name, "", "foreign", "")
        folder, _, last = target.rpartition("/")
        program = last if folder.rpartition("/")[2] == FOLDER else name
        place = _seen(file, self._fd)
        if place is None:
            return Link(name, program, "broken", target)
        return Link(name, program, "ok" if place in self._own else "foreign", target)

    def _target(self) -> str:
        """`virt` where that is the one beside the links: then the folder may be moved."""
        return "virt" if _seen("virt", self._fd) in self._own else self._virt

    def _make_program(self, program: str, target: str) -> str:
        """Make `.virt/PROGRAM`, which leads to virt, unless it is there; its path."""
        try:
            os.mkdir(FOLDER, 0o755, dir_fd=self._fd)
            os.chmod(f"{self.path}/{FOLDER}", 0o755)  # noqa: S103  whatever the umask: all may pass
        except FileExistsError:
            pass  # made for an earlier link
        path = f"{FOLDER}/{program}"
        if _seen(path, self._fd) not in self._own:
            os.symlink("../virt" if target == "virt" else target, path, dir_fd=self._fd)
        return path

    def _drop_program(self, program: str) -> None:
        """Remove `.virt/PROGRAM` where no link needs it any more, and the folder where it is empty."""
        if any(link.target == f"{FOLDER}/{program}" for link in self.links()):
            return
        os.unlink(f"{FOLDER}/{program}", dir_fd=self._fd)
        if not os.listdir(f"{self.path}/{FOLDER}"):
            os.rmdir(FOLDER, dir_fd=self._fd)

    def _taken(self, found: Link) -> DomainExists:
        is_ours = found.state == "ok"
        told = f"runs {found.program}" if is_ours else f"is not ours ({_told(found)})"
        hint = f"`virt unlink {found.name}` first" if is_ours else "choose another name"
        return DomainExists(
            f"cannot link {found.name}: {self.path}/virt{found.name} is there and {told}", hint=hint
        )

    def _failure(self, verb: str, file: str, error: OSError) -> Exception:
        message = f"cannot {verb} {self.path}/{file}: {error.strerror}"
        if isinstance(error, PermissionError):
            return NeedsPrivilege(message, hint="run it as root, or name a --bindir of your own")
        return ApplyError(message)


def _told(link: Link) -> str:
    if not link.target:
        return "no link"
    return f"{'a broken link' if link.state == 'broken' else 'a link'} to {link.target}"


def _seen(path: str, dir_fd: int | None = None) -> tuple[int, int] | None:
    """Which file a path leads to in the end, or None."""
    try:
        found = os.stat(path, dir_fd=dir_fd)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)
