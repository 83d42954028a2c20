"""The line of each key and list item of a TOML text; tomllib has the values and no lines."""

import re
import tomllib
from bisect import bisect_left
from dataclasses import dataclass
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = {
    '"""': re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})', re.DOTALL),
    "'''": re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL),
    '"': re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    "'": re.compile(r"'[^'\n]*'"),
}
_DEEPEST = 100  # every part of a key has a path of its own, so memory grows by the square
_PLAIN = re.compile(r"[^,\]}#\n]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its line from 1, and for a scalar its text as written ("0o755")."""

    line: int
    text: str


def lines(text: str) -> dict[Path, int]:
    """The line, from 1, of every key and list item of a TOML text that tomllib accepts.

    A path is what leads to the value in tomllib's result: ("users", 0, "name"). A table has
    the line that first names it, an item of a list the line it begins on.
    Raises ValueError for a key of more than 100 parts.
    """
    return {path: place.line for path, place in scan(text).items()}


def scan(text: str) -> dict[Path, Place]:
    """As `lines`, with the text of scalars."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


class _Scanner:
    """One pass over valid TOML 1.0, and the newlines that 1.1 allows in inline tables."""

    __slots__ = ("_at", "_items", "_newlines", "_text", "found")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._items: dict[Path, int] = {}
        self.found: dict[Path, Place] = {}

    def document(self) -> None:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._array_header()
            elif self._text.startswith("[", self._at):
                table = self._table_header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _array_header(self) -> Path:
        self._at += 2
        line = self._line()
        *parents, last = self._key()
        self._at += 2
        path = (*self._reach((), parents, line), last)
        self._note(path, line)
        index = self._items.get(path, 0)
        self._items[path] = index + 1
        self._note((*path, index), line)
        return (*path, index)

    def _table_header(self) -> Path:
        self._at += 1
        line = self._line()
        key = self._key()
        self._at += 1
        return self._reach((), key, line)

    def _reach(self, path: Path, key: list[str], line: int) -> Path:
        """Note every table on the way, which goes through the last item of arrays of tables."""
        for part in key:
            path = (*path, part)
            self._note(path, line)
            if path in self._items:
                path = (*path, self._items[path] - 1)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = self._reach(table, self._key(), line)
        self._at += 1
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        """The parts of a dotted key; leaves the position at the character behind it."""
        parts = []
        while True:
            self._skip(_SPACE)
            parts.append(self._part())
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            if len(parts) == _DEEPEST:
                where = f"(at line {self._line()}, column 1)"
                raise ValueError(f"a key has more than {_DEEPEST} parts {where}")
            self._at += 1

    def _part(self) -> str:
        quote = self._text[self._at]
        if quote not in _STRINGS:
            return self._take(_BARE_KEY)
        written = self._take(_STRINGS[quote])
        return str(tomllib.loads(f"key = {written}")["key"])

    def _value(self, path: Path) -> None:
        start = self._at
        opening = self._text[start]
        if opening == "[":
            self._list(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            triple = self._text[start : start + 3]
            written = self._take(_STRINGS.get(triple) or _STRINGS.get(opening) or _PLAIN)
            self.found[path] = Place(self.found[path].line, written.strip())

    def _list(self, path: Path) -> None:
        index = 0
        while not self._closes("]"):
            item = (*path, index)
            self._note(item, self._line())
            self._value(item)
            index += 1

    def _inline_table(self, path: Path) -> None:
        while not self._closes("}"):
            self._pair(path)

    def _closes(self, bracket: str) -> bool:
        """Step over an opening bracket or comma, and blanks; true at the end of the group."""
        self._skip(_BLANK)
        if not self._text.startswith(bracket, self._at):
            self._at += 1
            self._skip(_BLANK)
        if not self._text.startswith(bracket, self._at):
            return False
        self._at += 1
        return True

    def _note(self, path: Path, line: int) -> None:
        self.found.setdefault(path, Place(line, ""))

    def _line(self) -> int:
        return bisect_left(self._newlines, self._at) + 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._take(pattern)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"line {self._line()} is not TOML")
        self._at = match.end()
        return match.group()
