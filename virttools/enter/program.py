"""Finds a program in a tree, as the kernel will from inside, before anything is entered."""

import os
import stat

from virttools.enter import inside
from virttools.errors import EnterError


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
    head = inside.read(tree_fd, path, 256)
    if head is None or not head.startswith(b"#!"):
        return
    words = head[2:].split(b"\n")[0].split()
    interpreter = os.fsdecode(words[0]) if words else ""
    if not interpreter or _hindrance(tree_fd, os.path.join(cwd, interpreter)) is not None:
        raise EnterError(
            f"cannot run {path}: its interpreter {shown(interpreter)} is not in the tree",
            exit_code=126,
            hint="name the interpreter in `binaries` of the domain's manifest",
        )


def shown(text: str) -> str:
    """Text that a tree or a caller gave, with what a terminal would obey made visible."""
    return text if text.isprintable() else ascii(text)
