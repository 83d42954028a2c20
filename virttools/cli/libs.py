"""`virt libs`: the libraries of files, as ldd prints them, without running anything of theirs."""

import os
from typing import Annotated

import typer

from virttools.cli.output import Output
from virttools.errors import HostLacks, UsageError
from virttools.host import closure
from virttools.host.closure import Closure


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Print the libraries of programs, like ldd.",
        epilog="Example: virt libs /usr/bin/passwd /usr/bin/vi",
    )(libs)


def libs(
    ctx: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Programs or libraries.")],
    source_root: Annotated[
        str, typer.Option(metavar="DIR", help="Look in the system in DIR, not in this one.")
    ] = "/",
    resolver: Annotated[str, typer.Option(help="own, or ldd (runs ld.so on each file).")] = "own",
) -> None:
    """Print the library closure of each FILE."""
    output: Output = ctx.obj
    if resolver not in ("own", "ldd"):
        raise UsageError(f"cannot use resolver {resolver!r}: there are own and ldd")
    for file in files:
        if os.path.isdir(
            os.path.join(source_root, file.lstrip("/")) if source_root != "/" else file
        ):
            raise UsageError(
                f"cannot list the libraries of {file}: it is a folder",
                hint=f"name files: virt libs {file.rstrip('/')}/*",
            )
    reader = closure.Resolver(source_root)
    found = {
        file: closure.ldd(file) if resolver == "ldd" else reader.closure(file) for file in files
    }
    lines: list[str] = []
    for file, one in found.items():
        lines += [f"{file}:"] if len(files) > 1 else []
        lines += _lines(one)
    data = {
        "files": {file: _paths(one) for file, one in found.items()},
        "missing": {file: _missing(one) for file, one in found.items() if _missing(one)},
    }
    output.result("libs", data, lines)
    lacking = {file: _missing(one) for file, one in found.items() if _missing(one)}
    if lacking and not output.json:
        file, missing = next(iter(lacking.items()))
        raise HostLacks(f"cannot find every library of {file}: {', '.join(missing)}")
    if lacking:
        raise typer.Exit(HostLacks.exit_code)


def _paths(one: Closure | None) -> list[str]:
    return sorted({library.path for library in one.libraries}) if one else []


def _missing(one: Closure | None) -> list[str]:
    return sorted(lost.name for lost in one.missing if lost.required) if one else []


def _lines(one: Closure | None) -> list[str]:
    if one is None:
        return ["\tnot an ELF file: no libraries"]
    if not one.libraries:
        return ["\tstatically linked"]
    lines = [f"\t{library.name} => {library.path}" for library in one.libraries]
    return lines + [f"\t{lost.name} => not found" for lost in one.missing if lost.required]
