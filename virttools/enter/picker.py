"""Doer: asks on the terminal which domain is meant; standard output is left alone."""

import os
import time

from virttools.enter import history, listing, matching, roster
from virttools.errors import UsageError
from virttools.settings import Settings

_LONGEST = 4096
_ESCAPE = b"\x1b"


class Question:
    """What is asked: rows of domains, the one last used with the command, and now in seconds."""

    __slots__ = ("command", "last", "names", "now", "rows")

    def __init__(
        self, command: str, rows: "tuple[listing.Row, ...]", last: "str | None", now: float
    ) -> None:
        self.command = command
        self.rows = rows
        self.names = tuple(row.domain for row in rows)
        self.last = last
        self.now = now

    def text(self) -> str:
        """The question itself, in one line."""
        return f"Domain for {self.command}{'' if self.last is None else f' (-: {self.last})'}:"


def pick(tty_fd: int, settings: Settings, trees: "tuple[str, ...]", command: str) -> str:
    """The domain that the person at the terminal chooses.

    Drawn by questionary; a numbered list and a line to type on where the terminal cannot move its
    cursor (TERM=dumb or none) or virt.toml says picker = "plain". Raises KeyboardInterrupt where
    it is cancelled, UsageError where the terminal went away.
    """
    import site

    site.main()  # the fast way starts without (-S)
    times = history.used(settings.root, command)
    rows = roster.rows(settings.root, trees, times)
    last = history.latest(times, tuple(row.domain for row in rows))
    name = command.rpartition("/")[2]
    question = Question(name if name.isprintable() else ascii(name), rows, last, time.time())
    if settings.picker == "plain" or os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        position = _ask(tty_fd, question)
    else:
        from virttools.enter import drawn

        position = drawn.ask(tty_fd, question)
    return question.names[position]


def _ask(tty_fd: int, question: Question) -> int:
    """The plain way: pages of a list; each line that is typed chooses, narrows or turns the page."""
    shown = list(range(len(question.rows)))
    while True:
        shown = _show(tty_fd, question, shown)
        more = "; Enter: more" if shown else ""
        _write(tty_fd, f"number, name or letters{more}\n{question.text()} ")
        typed = _read(tty_fd)
        position = matching.choice(typed, question.names, question.last)
        if position is not None:
            _write(tty_fd, f"{question.names[position]}\n")
            return position
        near = matching.near(typed, question.names, question.last)
        if typed.strip() or not shown:
            _write(tty_fd, f"which of {len(near)}?\n" if near else "there is no such domain\n")
            shown = near or list(range(len(question.rows)))


def _show(tty_fd: int, question: Question, positions: "list[int]") -> "list[int]":
    """Show one page of positions; those that are left."""
    size = os.get_terminal_size(tty_fd)
    columns, height = size.columns or 80, max((size.lines or 24) - 3, 4)
    page = positions[:height]
    numbered = listing.lines(question.rows, columns, question.now)
    _write(tty_fd, "".join(f"{numbered[position]}\n" for position in page))
    return positions[height:]


def _read(tty_fd: int) -> str:
    try:
        typed = os.read(tty_fd, _LONGEST)
    except OSError as error:
        raise _gone() from error
    if not typed or typed.startswith(_ESCAPE):  # end of file (Ctrl-D), Esc
        raise KeyboardInterrupt
    return typed.decode(errors="replace")


def _write(tty_fd: int, text: str) -> None:
    rest = os.fsencode(text)
    try:
        while rest:
            rest = rest[os.write(tty_fd, rest) :]
    except OSError as error:
        raise _gone() from error


def _gone() -> UsageError:
    return UsageError(
        "cannot choose a domain: the terminal is gone", hint="name one by --domain or VIRT_DOMAIN"
    )
