"""One layer of TOML text to checked values with their lines; all that is wrong is told at once."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virttools.errors import ManifestError, Problem
from virttools.manifest import keys, positions
from virttools.manifest.forms import Form, nearest, octal_hint
from virttools.manifest.keys import Field, Items, Key, Scalar, Section, Words
from virttools.manifest.model import Layer, Origin
from virttools.manifest.names import UnfitError, quoted
from virttools.manifest.positions import Path

COMMAND_LINE = "command line"
DEFAULT = "default"
CHOSEN = "chosen by virt create"
_WRITTEN_BY_US = frozenset({COMMAND_LINE, DEFAULT, CHOSEN})  # their lines mean nothing to a user
_NAMELESS = str(None)  # of a faulty item that lacks its name
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Item:
    """One value of a key; in a list, the identity says which earlier item it replaces."""

    identity: str
    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class Entries:
    """What layers say to one list. resets: what earlier layers say is forgotten."""

    resets: bool
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class ParsedLayer:
    """The keys that one layer (or several, joined) sets, sorted; of sections as "etc.motd"."""

    scalars: tuple[tuple[str, Item], ...] = ()
    lists: tuple[tuple[str, Entries], ...] = ()

    @classmethod
    def of(cls, scalars: Mapping[str, Item], lists: Mapping[str, Entries]) -> "ParsedLayer":
        return cls(
            tuple((key, scalars[key]) for key in sorted(scalars)),
            tuple((key, lists[key]) for key in sorted(lists)),
        )

    def items(self, key: str) -> tuple[Item, ...]:
        return next((entries.items for name, entries in self.lists if name == key), ())


def parse(layer: Layer) -> ParsedLayer:
    """Check one layer. Raises ManifestError whose problems are all that is wrong in it."""
    parsed, problems = read(layer)
    if problems:
        raise ManifestError(f"cannot use {layer.file}: {count(problems)}", problems=problems)
    return parsed


def count(problems: Sequence[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def read(layer: Layer) -> tuple[ParsedLayer, tuple[Problem, ...]]:
    """What can be understood of one layer, and all that is wrong in it, by line."""
    try:
        document = tomllib.loads(layer.text)
        places = positions.scan(layer.text)
    except RecursionError:
        return ParsedLayer(), (Problem(layer.file, 0, "values are nested too deeply"),)
    except ValueError as error:
        return ParsedLayer(), (_syntax(layer, str(error)),)
    reader = _Reader(layer.file, places)
    reader.document(document)
    problems = sorted(reader.problems, key=lambda problem: problem.line)
    return reader.parsed(), tuple(problems)


def part(layer: Layer, name: str) -> tuple[tuple[Any, ...], tuple[Problem, ...]]:
    """The values of one list of a document, TOML without faults, whose other keys are not ours."""
    reader = _Reader(layer.file, positions.scan(layer.text))
    document = tomllib.loads(layer.text)
    reader.document({key: value for key, value in document.items() if key == name})
    return tuple(item.value for item in reader.parsed().items(name)), tuple(reader.problems)


def _syntax(layer: Layer, message: str) -> Problem:
    """A fault that tomllib found; it says where at the end of its sentence."""
    found = _AT.search(message)
    if "integer string conversion" in message:  # Python's own limit, without a place
        return Problem(layer.file, 0, "a number has too many digits")
    if found is None:
        return Problem(layer.file, 0, message[:1].lower() + message[1:])
    cause = message[:1].lower() + message[1 : found.start()]
    if found.group(1) is None:
        last = layer.text.rstrip("\n").count("\n") + 1
        return Problem(layer.file, last, f"{cause} (at the end)")
    line = int(found.group(1))
    cause = f"{cause} (column {found.group(2)})"
    octal = re.search(r"=\s*(0[0-7]+)\b", layer.text.split("\n")[line - 1])
    return Problem(layer.file, line, f"{cause}, {octal_hint(octal.group(1))}" if octal else cause)


class _Reader:
    """Walks the tables of keys.py over one document and gathers values and problems."""

    def __init__(self, file: str, places: Mapping[Path, positions.Place]) -> None:
        self._file = file
        self._places = places
        self._scalars: dict[str, Item] = {}
        self._lists: dict[str, Entries] = {}
        self.problems: list[Problem] = []

    def parsed(self) -> ParsedLayer:
        return ParsedLayer.of(self._scalars, self._lists)

    def document(self, document: Mapping[str, Any]) -> None:
        for name, key in self._known((), document, keys.TOP):
            self._key((name,), key, document[name])

    def _known(
        self, path: Path, table: Mapping[str, Any], known: Mapping[str, Key | Field]
    ) -> Iterable[tuple[str, Any]]:
        """The keys of a table that are known ones, with what keys.py says to them."""
        for name in table:
            if name in known:
                yield name, known[name]
            else:
                self._unknown(path, name, list(known))

    def _unknown(self, path: Path, name: str, known: list[str]) -> None:
        homes = [
            f"{section}.{name}"
            for section, key in keys.TOP.items()
            if not path and isinstance(key, Section) and name in key.keys
        ]
        hint = f"did you mean {homes[0]}?" if homes else nearest(name, known)
        where = f" in {shown(path)}" if path else ""
        self._report((*path, name), f"unknown key {shown((name,))}{where}", ", ".join(known), hint)

    def _key(self, path: Path, key: Key, value: Any) -> None:  # noqa: ANN401  of tomllib
        match key:
            case Scalar():
                self._scalar(path, key, value)
            case Words():
                self._words(path, key, value)
            case Items():
                self._items(path, key, value)
            case Section():
                self._section(path, key, value)

    def _section(self, path: Path, section: Section, value: Any) -> None:  # noqa: ANN401  of tomllib
        if not isinstance(value, dict):
            self._report(path, self._shown_as(path, value), f"a table, [{shown(path)}]")
            return
        for name, key in self._known(path, value, section.keys):
            self._key((*path, name), key, value[name])

    def _scalar(self, path: Path, key: Scalar, value: Any) -> None:  # noqa: ANN401  of tomllib
        if key.many:
            if not self._is_list(path, value):
                return
            checked = tuple(
                self._checked((*path, index), key.form, word) for index, word in enumerate(value)
            )
        else:
            checked = self._checked(path, key.form, value)
        if checked is not None:
            self._scalars[shown(path)] = Item("", checked, self._origin(path))

    def _words(self, path: Path, key: Words, value: Any) -> None:  # noqa: ANN401  of tomllib
        if key.splits and isinstance(value, str):
            words = [(path, word.strip()) for word in value.split(",")]
        elif self._is_list(path, value):
            words = [((*path, index), word) for index, word in enumerate(value)]
        else:
            return
        items = []
        for place, word in words:
            checked = self._checked(place, key.form, word)
            if checked is not None:
                items.append(Item(key.identity(checked), checked, self._origin(place)))
        self._keep(path, items, resets=not words)

    def _items(self, path: Path, key: Items, value: Any) -> None:  # noqa: ANN401  of tomllib
        if not self._is_list(path, value):
            return
        items = []
        for index, written in enumerate(value):
            place = (*path, index)
            made = self._item(place, key, written)
            if made is not None:
                items.append(Item(key.identity(made), made, self._origin(place)))
        self._keep(path, items, resets=not value)

    # A faulty item is kept, so that items of the same name are still found; its layer is never used
    def _item(self, path: Path, key: Items, written: Any) -> Any:  # noqa: ANN401  one of the model's, or None
        table = self._item_table(path, key, written)
        before = len(self.problems)
        if table is None:
            return None
        given = {
            name: self._field((*path, name), known, table[name])
            for name, known in self._known(path, table, key.fields)
        }
        values = {
            known.name or name: given.get(name, known.default) for name, known in key.fields.items()
        }
        self._require(path, key, table)
        fault = "" if len(self.problems) > before else key.fault(values)
        if fault:
            self._report(path, f"{shown(path)} {fault}")
        return key.model(**values, origin=self._origin(path))

    def _item_table(
        self,
        path: Path,
        key: Items,
        written: Any,  # noqa: ANN401  of tomllib
    ) -> Mapping[str, Any] | None:
        """The table of an item; a plain text stands for one where keys.py says so."""
        if isinstance(written, dict):
            return written
        if isinstance(written, str) and key.short:
            return self._short(path, key, written)
        if isinstance(written, str) and written in key.named:
            return key.named[written]
        table = f"a table with {', '.join(key.fields)}"
        allowed = f"{', '.join(key.named)} or {table}" if key.named else table
        if key.short:
            allowed = f"{key.fields[key.short].form.allowed}, or {table}"
        hint = nearest(written, list(key.named)) if isinstance(written, str) else ""
        self._report(path, self._shown_as(path, written), allowed, hint)
        return None

    def _short(self, path: Path, key: Items, written: str) -> Mapping[str, Any] | None:
        checked = self._checked(path, key.fields[key.short].form, written)
        return None if checked is None else {key.short: written}

    def _require(self, path: Path, key: Items, table: Mapping[str, Any]) -> None:
        for name, known in key.fields.items():
            if known.required and name not in table:
                self._report(path, f"{shown(path)} lacks the key {name}", known.form.allowed)

    def _field(self, path: Path, known: Field, value: Any) -> Any:  # noqa: ANN401  as the model has it
        if not known.many:
            return self._checked(path, known.form, value)
        if not self._is_list(path, value):
            return None
        return tuple(
            self._checked((*path, index), known.form, word) for index, word in enumerate(value)
        )

    def _is_list(self, path: Path, value: Any) -> bool:  # noqa: ANN401  of tomllib
        if isinstance(value, list):
            return True
        hint = f"did you mean [{quoted(value)}]?" if isinstance(value, str) else ""
        if isinstance(value, dict):
            hint = f"did you mean [[{shown(path)}]]?"
        self._report(path, self._shown_as(path, value), "a list", hint)
        return False

    def _checked(self, path: Path, form: Form, value: Any) -> Any:  # noqa: ANN401  as the model has it, or None
        """The value as the model has it, or None and a problem."""
        what = self._shown_as(path, value, secret=form.secret)
        if type(value) not in form.kinds:  # a TOML boolean is no number, though a Python bool is
            hint = octal_hint(str(value)) if form.octal and isinstance(value, str) else ""
            self._report(path, what, form.allowed, hint)
            return None
        try:
            checked = form.check(value)
        except UnfitError as error:
            hint = error.hint
            if form.octal and not hint:
                hint = octal_hint(self._written(path))
            what = f"{what}, {error.cause}" if error.cause else what
            self._report(path, what, form.allowed, hint)
            return None
        return checked if self._is_octal(path, form, value) else None

    def _is_octal(self, path: Path, form: Form, value: Any) -> bool:  # noqa: ANN401  of tomllib
        """755 is 0o1363: a mode must be written in octal, which the value alone cannot show."""
        written = self._written(path)
        if not form.octal or not value or not written or written.startswith("0o"):
            return True
        hint = octal_hint(written) or f"did you mean 0o{value:o}?"
        what = f"{self._shown_as(path, value)}, not written in octal"
        self._report(path, what, form.allowed, hint)
        return False

    def _keep(self, path: Path, items: list[Item], *, resets: bool) -> None:
        """Note a list, and every item that it names twice."""
        first: dict[str, Item] = {}
        for item in items:
            before = first.setdefault(item.identity, item)
            if before is not item and item.identity != _NAMELESS:
                self._repeated(path, f"{quoted(item.identity)}", item, before)
        for number in ("uid", "gid"):
            self._unique_numbers(path, number, items)
        self._lists[shown(path)] = Entries(resets, tuple(items))

    def _unique_numbers(self, path: Path, name: str, items: list[Item]) -> None:
        first: dict[int, Item] = {}
        for item in items:
            number = getattr(item.value, name, None)
            if number is None:
                continue
            before = first.setdefault(number, item)
            if before is not item and before.identity != item.identity:
                self._repeated(path, f"the {name} {number}", item, before)

    def _repeated(self, path: Path, what: str, item: Item, before: Item) -> None:
        where = f", first on line {before.origin.line}" if before.origin.line else ""
        message = f"{shown(path)} has {what} twice{where}, allowed: once"
        self.problems.append(Problem(self._file, item.origin.line, message))

    def _shown_as(self, path: Path, value: Any, *, secret: bool = False) -> str:  # noqa: ANN401  of tomllib
        match value:
            case str() if secret:
                text = "a text"
            case str():
                text = quoted(value)
            case list():
                text = "a list"
            case dict():
                text = "a table"
            case _:
                text = self._written(path)[:40]
        return f"{shown(path)} is {text}"

    def _written(self, path: Path) -> str:
        place = self._places.get(path)
        return place.text if place else ""

    def _origin(self, path: Path) -> Origin:
        return Origin(self._file, self._line(path))

    def _line(self, path: Path) -> int:
        return 0 if self._file in _WRITTEN_BY_US else self._places[path].line

    def _report(self, path: Path, what: str, allowed: str = "", hint: str = "") -> None:
        message = f"{what}, allowed: {allowed}" if allowed else what
        if hint:
            message = f"{message}, {hint}"
        self.problems.append(Problem(self._file, self._line(path), message))


def shown(path: Path) -> str:
    """A TOML path as messages and origins have it: `files[0].mode`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else quoted(part))
    return text
