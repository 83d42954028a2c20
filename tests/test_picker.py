"""The picker on a terminal of its own: drawn and plain, narrow and long, cancelled and gone."""

import os
import re
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.system.terminal import Terminal, running

REPOSITORY = Path(__file__).parents[1]
CANCELLED = 130

PROGRAM = """
import os, sys, threading
sys.path.insert(0, {repository!r})
from virttools.enter import inside, picker
from virttools.settings import Settings
here = Settings({root!r}, picker={picker!r})
tty_fd = os.open("/dev/tty", os.O_RDWR)
try:
    found = picker.pick(tty_fd, here, tuple(inside.domains(here.root)), "/usr/bin/passwd")
except KeyboardInterrupt:
    os._exit(130)
assert threading.active_count() == 1
print("picked", found)
"""


class Picking:
    """A root with domains, and ways to be asked for one of them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(
        self, *, term: str = "xterm", columns: int = 80, lines: int = 24, picker: str = "drawn"
    ) -> AbstractContextManager[Terminal]:
        program = PROGRAM.format(repository=str(REPOSITORY), root=str(self.root), picker=picker)
        env = {"TERM": term, "PATH": os.environ["PATH"]}
        argv = [sys.executable, "-I", "-S", "-c", program]
        return running(argv, env if term else {}, columns=columns, lines=lines)

    def used(self, domain: str, seconds: int) -> None:
        folder = self.root / ".virt/last/passwd"
        folder.mkdir(parents=True, exist_ok=True)
        (self.root / ".virt").chmod(0o700)
        (folder / domain).touch()
        os.utime(folder / domain, (seconds, seconds))


@pytest.fixture
def picking(tmp_path: Path) -> Picking:
    for name in ("alpha.com", "alpine.org", "beta.com"):
        (tmp_path / name).mkdir()
    return Picking(tmp_path)


@contextmanager
def answered(terminal: Terminal, *keys: str) -> Iterator[None]:
    """Type keys once the question stands."""
    terminal.expect("Domain for passwd")
    terminal.expect("beta.com")
    for key in keys:
        terminal.type(key)
    yield


@pytest.mark.parametrize(
    ("typed", "domain"),
    [
        ("3\r", "beta.com"),
        ("b\r", "beta.com"),
        ("alpi\r", "alpine.org"),
        ("ahm\r", "alpha.com"),
        ("-\r", "alpine.org"),
        ("al\r\x15beta\r", "beta.com"),
        ("\x1b[B\x1b[B\r", "alpine.org"),
        ("\x1b[A\r", "beta.com"),
    ],
    ids=["number", "begin", "longer begin", "letters", "last", "not sure", "down", "up"],
)
def test_the_drawn_picker_takes_what_is_typed(picking: Picking, typed: str, domain: str) -> None:
    """A number, a unique begin, letters, `-`, the arrow keys; what is not sure is not taken."""
    picking.used("alpha.com", 1)
    picking.used("alpine.org", 2)
    with picking() as terminal, answered(terminal, typed):
        terminal.expect(f"picked {domain}\n")
        assert terminal.end() == 0


@pytest.mark.parametrize("key", ["\x03", "\x04", "\x1b"], ids=["Ctrl-C", "Ctrl-D", "Esc"])
@pytest.mark.parametrize("term", ["xterm", "vt100"])
def test_the_drawn_picker_is_cancelled(picking: Picking, key: str, term: str) -> None:
    """Nothing is picked, and the terminal is told that it may write as before."""
    with picking(term=term) as terminal, answered(terminal, key):
        assert terminal.end() == CANCELLED
        assert "picked" not in terminal.shown


def test_the_menu_tells_what_there_is_to_know(picking: Picking) -> None:
    """Number, domain, health, last use."""
    picking.used("beta.com", 1)
    with picking(columns=120) as terminal, answered(terminal):
        terminal.expect("! no record")
        terminal.expect("d ago")
        terminal.type("\x03")
        assert terminal.end() == CANCELLED
    assert re.search(r" 1 alpha\.com .* 2 alpine\.org ", terminal.shown, re.DOTALL)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_forty_columns_are_enough(picking: Picking, term: str) -> None:
    """Names stay readable, and Enter works."""
    with picking(term=term, columns=40) as terminal:
        terminal.expect("beta.com") if term == "dumb" else terminal.expect("3 beta.com")
        terminal.type("3\r")
        terminal.expect("picked beta.com\n")
        assert terminal.end() == 0
    listed = [line for line in terminal.shown.split("\n") if line.startswith(("1 ", "2 ", "3 "))]
    assert all(len(line) < 40 for line in listed)


@pytest.mark.parametrize(("term", "picker"), [("dumb", "drawn"), ("", "drawn"), ("xterm", "plain")])
@pytest.mark.parametrize(
    ("typed", "domain"),
    [
        ("3\r", "beta.com"),
        ("alpi\r", "alpine.org"),
        ("-\r", "alpha.com"),
        ("al\r2\r", "alpine.org"),
    ],
)
def test_the_plain_list_takes_a_line(
    picking: Picking, term: str, picker: str, typed: str, domain: str
) -> None:
    """TERM=dumb, no TERM, or as virt.toml wants it: no escape sequence, a numbered list, a line."""
    picking.used("alpha.com", 1)
    with picking(term=term, picker=picker) as terminal:
        terminal.expect("Domain for passwd (-: alpha.com): ")
        terminal.type(typed)
        terminal.expect(f"picked {domain}\n")
        assert terminal.end() == 0
    assert "\x1b" not in terminal.shown
    assert terminal.shown.startswith("1 alpha.com   ! no record  used ")


@pytest.mark.parametrize("key", ["\x04", "\x1b\r"], ids=["Ctrl-D", "Esc"])
def test_the_plain_list_is_cancelled(picking: Picking, key: str) -> None:
    """End of file and Esc; Ctrl-C comes as a signal."""
    with picking(term="dumb") as terminal:
        terminal.expect("Domain for passwd: ")
        terminal.type(key)
        assert terminal.end() == CANCELLED


def test_a_thousand_domains_can_be_paged_and_narrowed(picking: Picking) -> None:
    """A page at a time; letters narrow it down."""
    for number in range(1000):
        (picking.root / f"host{number:04}.org").mkdir()
    with picking(term="dumb") as terminal:
        first = terminal.expect("Domain for passwd: ")
        assert len(first.splitlines()) <= 24
        assert "   1 alpha.com" in first
        terminal.type("\r")
        second = terminal.expect("Domain for passwd: ")
        assert "  22 host0018.org" in second
        terminal.type("099\r")
        assert "which of 28?" in terminal.expect("Domain for passwd: ")
        terminal.type("0999\r")
        terminal.expect("picked host0999.org\n")
        assert terminal.end() == 0


def test_the_drawn_picker_finds_one_of_a_thousand(picking: Picking) -> None:
    """By a part of its name, or by its number."""
    for number in range(1000):
        (picking.root / f"host{number:04}.org").mkdir()
    for typed in ("0999", "1003"):
        with picking() as terminal:
            terminal.expect("alpha.com")
            terminal.type(f"{typed}\r")
            terminal.expect("picked host0999.org\n")
            assert terminal.end() == 0


def test_a_signal_leaves_the_terminal_as_it_was(picking: Picking) -> None:
    """Killed while the question stands: the shell behind it is not left in raw mode."""
    with picking() as terminal, answered(terminal):
        raw = terminal.modes()
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.end() == -signal.SIGTERM
        assert raw[3] & termios.ICANON == 0
        assert terminal.modes()[3] & termios.ICANON != 0


def test_a_terminal_that_goes_away_picks_nothing(picking: Picking) -> None:
    """The program ends, by the hangup or by itself."""
    for term in ("xterm", "dumb"):
        with picking(term=term) as terminal:
            terminal.expect("Domain for passwd")
            terminal.hang_up()
            assert terminal.reap() != 0
