"""What a Python interpreter needs to start and for plain imports to work: its standard library."""

import re
from collections.abc import Iterator

from virttools.host.bundles.rule import Program, Rule, Wish, folder
from virttools.host.sysroot import Sysroot

_NAME = re.compile(r"python(\d+(?:\.\d+)?)?")
# Caches, tests, things for developers and desktops, and what pip puts beside the library.
_LEFT_OUT = frozenset(
    [
        "__pycache__",
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "EXTERNALLY-MANAGED",
    ]
)
# The static library; modules of its own tests; NIS, which alone needs Kerberos.
_LEFT_OUT_STARTS = ("config-", "_test", "_ctypes_test", "_xxtest", "xxlimited", "nis.")


def _trigger(program: Program) -> str | None:
    is_python = program.interpreter is None and _NAME.fullmatch(program.name) and program.libraries
    return f"is {program.name}" if is_python else None


def _wishes(sysroot: Sysroot, program: Program) -> Iterator[Wish]:
    for library in _libraries(sysroot, program):
        yield from _files(sysroot, library, program.path)


def _libraries(sysroot: Sysroot, program: Program) -> Iterator[str]:
    """The folders that have os.py, the landmark the interpreter knows them by (getpath.py)."""
    found = _NAME.fullmatch(program.name)
    version = (found and found[1]) or ""
    prefix = folder(folder(program.path))
    for lib in ("lib", "lib64"):
        for name in sysroot.names(f"{prefix}/{lib}"):
            is_ours = name == f"python{version}" or name.startswith(f"python{version}.")
            if is_ours and sysroot.is_file(f"{prefix}/{lib}/{name}/os.py"):
                yield f"{prefix}/{lib}/{name}"


def _files(sysroot: Sysroot, directory: str, by: str) -> Iterator[Wish]:
    for name in sysroot.names(directory):
        path = f"{directory}/{name}"
        if name in _LEFT_OUT or name.startswith(_LEFT_OUT_STARTS):
            continue
        if sysroot.is_directory(path):
            yield from _files(sysroot, path, by)
        else:
            # Some modules have an x bit and a first line of their authors' machines.
            yield Wish(path, by, is_program=name.endswith(".so"))


RULE = Rule(
    name="python",
    about="the standard library of that interpreter, less tests, caches, Tk and installed packages",
    trigger=_trigger,
    wishes=_wishes,
)
