"""A merged manifest as TOML again, each value with the line that it came from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from virttools.manifest import forms
from virttools.manifest.forms import Form
from virttools.manifest.keys import TOP, Field, Items, Plain, Scalar, Section, Words
from virttools.manifest.model import Manifest, Origin


@dataclass(frozen=True, slots=True)
class Line:
    """One line of TOML; origin None where it only holds others."""

    text: str
    origin: Origin | None


def lines(manifest: Manifest) -> tuple[Line, ...]:
    """What a manifest says, as one that includes nothing would say it; defaults are left out."""
    return tuple(_Writer(manifest).lines())


def document(manifest: Manifest) -> dict[str, Any]:
    """The same as JSON has it: every key, modes as octal text, origins as "file:line"."""
    return {key: _plain(kind, getattr(manifest, key)) for key, kind in TOP.items()}


class _Writer:
    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._origins = dict(manifest.origins)

    def lines(self) -> Iterator[Line]:
        sections = [key for key, kind in TOP.items() if isinstance(kind, Section)]
        for key, kind in TOP.items():
            if not isinstance(kind, Section):
                yield from self._key(key, kind, getattr(self._manifest, key))
        # In TOML a table takes all plain keys that follow it.
        for key in sections:
            yield from self._section(key)

    def _section(self, key: str) -> Iterator[Line]:
        kind = TOP[key]
        assert isinstance(kind, Section)
        values = getattr(self._manifest, key)
        for name, plain in kind.keys.items():
            yield from self._key(f"{key}.{name}", plain, getattr(values, name))

    def _key(self, key: str, kind: Plain | Items, value: Any) -> Iterator[Line]:  # noqa: ANN401  as declared
        if isinstance(kind, Scalar) and kind.many:
            if value:
                text = ", ".join(_text(kind.form, one) for one in value)
                yield Line(f"{key} = [{text}]", self._origins.get(key))
        elif isinstance(kind, Scalar):
            if value is not None:
                yield Line(f"{key} = {_text(kind.form, value)}", self._origins.get(key))
        elif value:
            yield Line(f"{key} = [", None)
            for index, item in enumerate(value):
                yield self._item(f"{key}[{index}]", kind, item)
            yield Line("]", None)

    def _item(self, key: str, kind: Words | Items, item: Any) -> Line:  # noqa: ANN401  as declared
        if isinstance(kind, Words):
            return Line(f"  {_text(kind.form, item)},", self._origins.get(key))
        return Line(f"  {_table(kind, item)},", item.origin)


def _table(kind: Items, item: Any) -> str:  # noqa: ANN401  as declared
    said = {
        key: value
        for key, field in kind.fields.items()
        if (value := getattr(item, field.name or key)) != field.default
    }
    if list(said) == [kind.short]:
        return _text(kind.fields[kind.short].form, said[kind.short])
    pairs = (f"{key} = {_value(kind.fields[key], value)}" for key, value in said.items())
    return f"{{ {', '.join(pairs)} }}"


def _value(field: Field, value: Any) -> str:  # noqa: ANN401  as declared
    if field.many:
        return f"[{', '.join(_text(field.form, one) for one in value)}]"
    return _text(field.form, value)


def _text(form: Form, value: Any) -> str:  # noqa: ANN401  as declared
    if form is forms.DURATION:
        return f'"{value}s"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"0o{value:o}" if form.octal else str(value)
    # JSON's strings are TOML's, but for DEL, and for characters beyond 16 bits if escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain(kind: Plain | Items | Section, value: Any) -> Any:  # noqa: ANN401  JSON
    match kind:
        case Scalar(form=form, many=True):
            return [_json(form, one) for one in value]
        case Scalar(form=form):
            return _json(form, value)
        case Words(form=form):
            return [_json(form, one) for one in value]
        case Section(keys=keys):
            return {name: _plain(plain, getattr(value, name)) for name, plain in keys.items()}
        case Items(fields=fields):
            return [
                {
                    key: _field(field, getattr(item, field.name or key))
                    for key, field in fields.items()
                }
                | {"origin": str(item.origin)}
                for item in value
            ]


def _field(field: Field, value: Any) -> Any:  # noqa: ANN401  JSON
    return [_json(field.form, one) for one in value] if field.many else _json(field.form, value)


def _json(form: Form, value: Any) -> Any:  # noqa: ANN401  JSON
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return f"{value:04o}" if form.octal else value
    return str(value)
