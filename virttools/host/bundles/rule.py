"""Values: what a rule looks at, and what it wishes for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from virttools.host.scripts import Interpreter
from virttools.host.sysroot import Sysroot


@dataclass(frozen=True, slots=True)
class Program:
    """A program or library that is drawn into a tree.

    path: canonical. called: the names it was asked for by (vi, vim.tiny).
    libraries: (name, path) of its closure. interpreter: of a script.
    """

    path: str
    called: tuple[str, ...]
    libraries: tuple[tuple[str, str], ...] = ()
    interpreter: Interpreter | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def library(self, *starts: str) -> tuple[str, str] | None:
        """The first library whose name begins so."""
        for library in self.libraries:
            if library[0].startswith(starts):
                return library
        return None


@dataclass(frozen=True, slots=True)
class Wish:
    """A host path, by itself or with all below it. What the host lacks is skipped.

    by: the path that asks for it. is_needed: its absence is worth a warning.
    is_program: its own libraries and interpreter come too.
    """

    path: str
    by: str
    is_needed: bool = False
    is_program: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """A bundle: files that a program needs and no ELF header names.

    about: what it draws in. trigger: what in a program asks for it ("links libpam.so.0"), or None.
    """

    name: str
    about: str
    trigger: Callable[[Program], str | None]
    wishes: Callable[[Sysroot, Program], Iterator[Wish]]


def links(*starts: str) -> Callable[[Program], str | None]:
    """A trigger: the program's closure has a library whose name begins so."""

    def trigger(program: Program) -> str | None:
        found = program.library(*starts)
        return None if found is None else f"links {found[0]}"

    return trigger


def folder(path: str) -> str:
    return path.rpartition("/")[0]
