"""Finds a program in a tree, as the kernel will from inside, before anything is entered."""

import os
import stat

from virttools.enter import inside
from virttools.errors import EnterError

_MOST_INTERPRETERS = 5
"""BINPRM depth of the kernel (fs/exec.c)."""


def find(tree_fd: int, name: str, path: str, cwd: str = "/") -> str:
    """The absolute path, inside the tree, of the program that execvp(3) would run for name.

    path: the PATH to search; cwd: where names with a slash and relative parts of PATH begin.
    Raises EnterError: 127 where there is none, 126 where it cannot be executed.
    """
    folders = [""] if "/" in name else path.split(":")
    refused: EnterError | None = None
    for folder in folders if name else []:
        candidate = os.path.join(cwd, folder, name)
        cause = _hindrance(tree_fd, candidate)
        if cause is None:
            _check_interpreter(tree_fd, candidate, cwd)
            return candidate
        if cause:
            refused = refused or EnterError(
                f"cannot run {candidate}: {cause}", exit_code=126, hint="`chmod +x` in the tree"
            )
    raise refused or EnterError(
        f"cannot find {shown(name)}: it is not in the tree",
        exit_code=127,
        hint="name it in `binaries` of the domain's manifest",
    )


def _hindrance(tree_fd: int, path: str) -> str | None:
    """Why path is no program: a cause, "" where nothing is there, None where it is one."""
    try:
        fd = inside.look(tree_fd, path)
    except OSError:
        return ""
    mode = os.fstat(fd).st_mode
    os.close(fd)
    if stat.S_ISDIR(mode):
        return "it is a folder"
    if not stat.S_ISREG(mode):
        return "it is not a file"
    return None if mode & 0o111 else "it is not executable"


def _check_interpreter(tree_fd: int, path: str, cwd: str) -> None:
    first = _first_line(tree_fd, path)
    if first is None:
        return
    interpreter = os.fsdecode(first[0])
    if not interpreter or _hindrance(tree_fd, os.path.join(cwd, interpreter)) is not None:
        raise EnterError(
            f"cannot run {path}: its interpreter {shown(interpreter)} is not in the tree",
            exit_code=126,
            hint="name the interpreter in `binaries` of the domain's manifest",
        )


def _first_line(tree_fd: int, path: str) -> list[bytes] | None:
    """Interpreter and, where there is one, its argument, as the kernel reads `#!`; None: no script."""
    head = inside.read(tree_fd, path, 256)
    if head is None or not head.startswith(b"#!"):
        return None
    line = head[2:].partition(b"\n")[0].partition(b"\0")[0].strip(b" \t")
    words = line.replace(b"\t", b" ").split(b" ", 1)
    return [words[0], *(word.strip(b" ") for word in words[1:])]


def interpreter(tree_fd: int, name: str, path: str) -> tuple[bytes, ...]:
    """The interpreter of a script and its option, the one that env(1) would find too; () of no script.

    Raises EnterError as `find` does.
    """
    words = _first_line(tree_fd, find(tree_fd, name, path)) or []
    if words[1:] and os.path.basename(words[0]) == b"env" and not words[1].startswith(b"-"):
        words = words[1:]
    if not words:
        return ()
    return (os.fsencode(find(tree_fd, os.fsdecode(words[0]), path)), *words[1:])


class Located:
    """What the kernel executes in the end, links and `#!` followed, so that no path is left to do it.

    folder and name: absolute, as from inside; a last component that is no link. has_set_id: of
    root's, which a build leaves only to what the manifest names in `setuid`.
    """

    __slots__ = ("argv", "folder", "has_set_id", "name")

    def __init__(self, folder: bytes, name: bytes, argv: list[bytes], *, has_set_id: bool) -> None:
        self.folder = folder
        self.name = name
        self.argv = argv
        self.has_set_id = has_set_id


def locate(tree_fd: int, path: str, argv: list[bytes], cwd: str) -> Located:
    """Where a program that `find` found really lies. A script is its interpreter's argument.

    An execve(2) by path could be led astray by a link that is planted meanwhile, to
    /proc/self/exe for one: that is our own interpreter, a file of the host.
    """
    words = list(argv)
    for _ in range(_MOST_INTERPRETERS):
        first = _first_line(tree_fd, path)
        if first is None:
            return _real(tree_fd, path, words)
        words = [*first, os.fsencode(path), *words[1:]]
        path = os.path.join(cwd, os.fsdecode(first[0]))
    raise EnterError(f"cannot run {path}: its interpreter is a script, and so on", exit_code=126)


def _real(tree_fd: int, path: str, argv: list[bytes]) -> Located:
    try:
        folder, _, name = os.fsencode(inside.real_path(tree_fd, path)).rpartition(b"/")
        fd = inside.look(tree_fd, path)
    except OSError as error:
        raise EnterError(f"cannot run {path}: {error.strerror}", exit_code=126) from error
    found = os.fstat(fd)
    os.close(fd)
    has_set_id = found.st_uid == 0 and bool(found.st_mode & (stat.S_ISUID | stat.S_ISGID))
    return Located(folder or b"/", name, argv, has_set_id=has_set_id)


def shown(text: str) -> str:
    """Text that a tree or a caller gave, with what a terminal would obey made visible."""
    return text if text.isprintable() else ascii(text)
