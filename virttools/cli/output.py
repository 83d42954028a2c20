"""What a user sees: results on stdout, all else on stderr, or one JSON document of both.

On a terminal tables have colour; in a pipe they are tab-separated lines without a heading.
"""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from virttools import settings
from virttools.enter import userns
from virttools.errors import ConfigError, HostLacks, ManifestError, VirtError
from virttools.settings import Settings

VERSION = 1


@dataclass(frozen=True, slots=True)
class Output:
    """How this call shows things, from the options before the command; called: argv[0]."""

    settings: Settings
    json: bool
    verbose: bool
    quiet: bool
    color: bool
    events: bool = False
    called: str = "virt"

    def virt(self) -> str:
        """How to call `virt` for this root from a shell like this one."""
        root = self.settings.root
        is_default = settings.load(os.environ).root == root
        return "virt" if is_default else f"virt --root {shlex.quote(root)}"

    def result(self, command: str, data: dict[str, Any], lines: Sequence[str] = ()) -> None:
        """Show what a command found: `data` with --json, else `lines`."""
        if self.json:
            if (mapping := userns.found()) is not None:
                data = {**data, "user_namespace": mapping.document()}
            print(_envelope(command, "ok", data, []))
        else:
            for line in lines:
                print(line)

    def note(self, line: str) -> None:
        """A remark for a person, on stderr; not with --quiet or --json."""
        if not self.quiet and not self.json:
            print(line, file=sys.stderr)

    def tell_namespace(self) -> None:
        """For an ordinary user: see that there is a user namespace to work in, and say what that lacks.

        Raises HostLacks where there is none.
        """
        if (mapping := userns.require()) is not None:
            self.note(f"virt: {mapping.told()}")

    def table(self, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under a heading on a terminal; tab-separated lines in a pipe."""
        if not self.is_terminal():
            for row in rows:
                print("\t".join(row))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(heading))
        for name in heading:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*row)
        Console(no_color=not self.color, highlight=False).print(table)

    def tables(self, several: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]) -> None:
        """Each with its heading; on a terminal with an empty line between two."""
        for number, (heading, rows) in enumerate(several):
            if number and self.is_terminal():
                print()
            self.table(heading, rows)

    def is_terminal(self) -> bool:
        return sys.stdout.isatty() and not self.json

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A bar on stderr while something long runs, where that is a terminal.

        With --events, JSON lines instead, on whatever stderr is.
        Yields what to call with how many more are done, and of how many in all.
        """
        if self.events:
            yield _Events(title).advance
            return
        if self.json or self.quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield lambda _more, _total: None
            return
        with contextlib.ExitStack() as shown:
            yield _Bar(shown, title, color=self.color).advance


class _Events:
    """Progress for a program that reads: a line at the first advance, at each further tenth, and at the end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._done = 0
        self._told = -1

    def advance(self, more: int, total: int) -> None:
        self._done += more
        tenth = self._done * 10 // total if total > 0 else 0
        if tenth > self._told:
            self._told = tenth
            line = {"event": "progress", "what": self._title, "done": self._done, "total": total}
            print(json.dumps(line), file=sys.stderr, flush=True)


class _Bar:
    """A progress bar that begins with the first advance: it has a thread, and who has one enters no user namespace."""

    def __init__(self, shown: contextlib.ExitStack, title: str, *, color: bool) -> None:
        self._shown = shown
        self._title = title
        self._color = color
        self._update: Callable[[int, int], None] | None = None

    def advance(self, more: int, total: int) -> None:
        if self._update is None:
            self._update = self._begin()
        self._update(more, total)

    def _begin(self) -> Callable[[int, int], None]:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True, no_color=not self._color)
        bar = self._shown.enter_context(Progress(console=console, transient=True))
        task = bar.add_task(self._title, total=None)
        return lambda more, total: bar.update(task, advance=more, total=total)


def failure(error: VirtError, command: str, *, as_json: bool) -> int:
    """Say what went wrong, each problem on a line of its own, then the hint; returns the exit status."""
    if not os.path.exists("/proc/self"):
        error.hint = (
            "mount -t proc proc /proc: it is not mounted here, and nothing works without it"
        )
    problems = error.problems if isinstance(error, (ManifestError, HostLacks, ConfigError)) else ()
    if as_json:
        rows: list[dict[str, Any]] = [
            {"code": error.code, "message": p.message, "file": p.file, "line": p.line, "hint": None}
            for p in problems
        ]
        whole = {"code": error.code, "message": error.message, "file": None, "line": None}
        print(_envelope(command, "error", {}, [{**whole, "hint": error.hint}, *rows]))
        return error.exit_code
    print(f"virt: {error.message}", file=sys.stderr)
    for problem in problems:
        print(problem, file=sys.stderr)
    if error.hint is not None:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


def _envelope(command: str, status: str, data: dict[str, Any], errors: list[dict[str, Any]]) -> str:
    document = {
        "version": VERSION,
        "command": command,
        "status": status,
        "data": data,
        "errors": errors,
    }
    return json.dumps(document, indent=2)


def size(count: int) -> str:
    """A number of bytes for a person: `812 B`, `3.4 MB` (powers of 1000, as df -H)."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
