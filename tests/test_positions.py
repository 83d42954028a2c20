"""The scanner of lines agrees with tomllib on what there is, and is right about where."""

import json
import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from virttools.manifest import positions
from virttools.manifest.positions import Path

LOOK_ALIKES = ["[table]", "key = 1", "# no comment", "]]", "},", "=", "'", "é😀", "a.b", " ", "\t"]
PIECES = st.lists(st.sampled_from(LOOK_ALIKES), max_size=4)
SCALARS = ["1", "0o17", "0xFF", "1_000", "3.5e2", "inf", "true", "1979-05-27 07:32:00Z", "07:32:00"]


class Draft:
    """A TOML text in the making, which notes the line of everything it writes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}
        self.keys = 0

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def blank(self, *, newlines: bool) -> None:
        """Space, and where it may stand a comment that looks like TOML."""
        self.text += self.draw(st.sampled_from(["", " ", "\t "]))
        if newlines and self.draw(st.booleans()):
            self.text += self.draw(st.sampled_from(["\n", "\r\n", '# [x] = """ ]\n', "\n\n"]))

    def key(self) -> str:
        """A key nobody has used, bare or quoted."""
        self.keys += 1
        stem = "".join(self.draw(PIECES))
        kind = self.draw(st.sampled_from(["bare", "basic", "literal"]))
        if kind == "bare":
            self.text += f"k-{self.keys}"
            return f"k-{self.keys}"
        name = (
            f"{stem}{self.keys}" if kind == "basic" else f"{stem.replace(chr(39), '')}{self.keys}"
        )
        self.text += json.dumps(name, ensure_ascii=False) if kind == "basic" else f"'{name}'"
        return name

    def pair(self, table: Path, depth: int) -> None:
        path = table
        for last in [False] * self.draw(st.integers(0, 2)) + [True]:
            path = (*path, self.key())
            self.note(path)
            self.blank(newlines=False)
            self.text += "=" if last else "."
            self.blank(newlines=False)
        self.value(path, depth)

    def value(self, path: Path, depth: int) -> None:
        kinds = ["scalar", "string", "multi-line", "list", "inline table"]
        kind = self.draw(st.sampled_from(kinds if depth else kinds[:3]))
        if kind == "scalar":
            self.text += self.draw(st.sampled_from(SCALARS))
        elif kind == "string":
            self.string()
        elif kind == "multi-line":
            self.multi_line_string()
        elif kind == "list":
            self.list(path, depth - 1)
        else:
            self.inline_table(path, depth - 1)

    def string(self) -> None:
        text = "".join(self.draw(PIECES))
        if self.draw(st.booleans()):
            self.text += json.dumps(text, ensure_ascii=False)
        else:
            self.text += "'" + text.replace("'", "") + "'"

    def multi_line_string(self) -> None:
        text = "\n".join(self.draw(PIECES)) + self.draw(
            st.sampled_from(["", "\r\n", "\n[x]\ny = 1\n"])
        )
        quote = self.draw(st.sampled_from(['"', "'"]))
        if quote == '"':
            text += self.draw(st.sampled_from(["", '\\"""', "\\\\", '"', '""', "\\\n   "]))
        else:
            text = text.replace("'", "") + self.draw(st.sampled_from(["", "''", '"""', "\\"]))
        self.text += quote * 3 + text + quote * 3

    def list(self, path: Path, depth: int) -> None:
        self.text += "["
        for index in range(self.draw(st.integers(0, 3))):
            self.text += "," if index else ""
            self.blank(newlines=True)
            self.note((*path, index))
            self.value((*path, index), depth)
            self.blank(newlines=True)
        self.text += self.draw(st.sampled_from(["", ","])) if not self.text.endswith("[") else ""
        self.blank(newlines=True)
        self.text += "]"

    def inline_table(self, path: Path, depth: int) -> None:
        self.text += "{"
        for index in range(self.draw(st.integers(0, 2))):
            self.text += "," if index else ""
            self.blank(newlines=False)
            self.pair(path, depth)
            self.blank(newlines=False)
        self.text += "}"

    def pairs(self, table: Path) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.blank(newlines=True)
            self.pair(table, 2)
            self.text += self.draw(st.sampled_from(["\n", " # [x]\n", "\r\n"]))

    def table(self) -> None:
        """[a.b], then perhaps [a.b.c] or [[a.b.d]] below it."""
        self.text += "["
        path: Path = ()
        for index in range(self.draw(st.integers(1, 3))):
            self.text += "." if index else ""
            path = (*path, self.key())
            self.note(path)
        self.text += "]\n"
        self.pairs(path)

    def array_of_tables(self) -> None:
        """[[a]] some times, with [a.b] and [[a.c]] below each."""
        name = f"array-{self.keys}"
        self.keys += 1
        for index in range(self.draw(st.integers(1, 3))):
            self.note((name,))
            self.note((name, index))
            self.text += f"[[ {name} ]]\n"
            self.pairs((name, index))
            if self.draw(st.booleans()):
                self.note((name, index, "sub"))
                self.text += f"[{name}.sub] # [[no]]\n"
                self.pairs((name, index, "sub"))
            for inner in range(self.draw(st.integers(0, 2))):
                self.note((name, index, "in ner"))
                self.note((name, index, "in ner", inner))
                self.text += f'[[{name} . "in ner"]]\n'
                self.pairs((name, index, "in ner", inner))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    draft = Draft(draw)
    draft.pairs(())
    for kind in draw(st.lists(st.sampled_from([draft.table, draft.array_of_tables]), max_size=3)):
        kind()
    return draft.text, draft.lines


def paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Every path of what tomllib returned."""
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, below in inner:
        yield from paths(below, (*path, key))


@given(documents())
def test_every_key_and_item_has_its_line(document: tuple[str, dict[Path, int]]) -> None:
    """For any TOML text the paths are those of tomllib, and the lines those the text was written with."""
    text, lines = document
    found = positions.lines(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    assert found == lines


@given(st.text(alphabet="ab.=[]{}\"'#,\\ \n\r\t01", max_size=40))
def test_whatever_tomllib_accepts_is_scanned(text: str) -> None:
    """No text that tomllib takes brings the scanner out of step with it."""
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    assert set(positions.lines(text)) == set(paths(document))


def test_scalars_keep_their_text_as_written() -> None:
    """A mode shows whether it was written in octal, and a long string is one value."""
    text = 'mode = 0o755 # x\nsize=755\nname = "a\\tb"\nlist = [\n  0o1,\n  { mode = 7_0 }]\n'
    found = {path: place.text for path, place in positions.scan(text).items() if place.text}
    assert found == {
        ("mode",): "0o755",
        ("size",): "755",
        ("name",): '"a\\tb"',
        ("list", 0): "0o1",
        ("list", 1, "mode"): "7_0",
    }


def test_a_table_has_the_line_that_first_names_it() -> None:
    """Dotted keys, headers and repeated headers of a list of tables each count from where they begin."""
    text = "etc.motd = ''\n\n[[users]]\nname = 'a'\n\n[[users]]\nname = 'b'\n[home]\n"
    assert positions.lines(text) == {
        ("etc",): 1,
        ("etc", "motd"): 1,
        ("users",): 3,
        ("users", 0): 3,
        ("users", 0, "name"): 4,
        ("users", 1): 6,
        ("users", 1, "name"): 7,
        ("home",): 8,
    }
