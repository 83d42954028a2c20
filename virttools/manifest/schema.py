"""The JSON Schema of manifests, for editors, made from the tables that the parser uses."""

from typing import Any

from virttools.manifest import keys
from virttools.manifest.keys import Field, Items, Key, Scalar, Section, Words

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one manifest file."""
    return {
        "$schema": DIALECT,
        "title": "virttools manifest",
        "type": "object",
        "properties": {name: _key(key) for name, key in keys.TOP.items()},
        "additionalProperties": False,
    }


def _key(key: Key) -> dict[str, Any]:
    match key:
        case Scalar(many=True):
            several = {"type": "array", "items": dict(key.form.schema)}
            return _described(several, f"{key.about}: {key.form.allowed}")
        case Scalar():
            return _described(dict(key.form.schema), f"{key.about}: {key.form.allowed}")
        case Words():
            return _words(key)
        case Items():
            return _described({"type": "array", "items": _item(key)}, key.about)
        case Section():
            properties = {name: _key(inner) for name, inner in key.keys.items()}
            return _described(_object(properties), key.about)


def _words(key: Words) -> dict[str, Any]:
    several = {"type": "array", "items": dict(key.form.schema), "uniqueItems": True}
    about = f"{key.about}: {key.form.allowed}"
    if key.splits:
        return _described({"anyOf": [several, {"type": "string"}]}, about)
    return _described(several, about)


def _item(key: Items) -> dict[str, Any]:
    table = _object({name: _field(field) for name, field in key.fields.items()})
    required = [name for name, field in key.fields.items() if field.required]
    if required:
        table["required"] = required
    if key.short:
        return {"anyOf": [dict(key.fields[key.short].form.schema), table]}
    if key.named:
        return {"anyOf": [{"type": "string", "enum": list(key.named)}, table]}
    return table


def _field(field: Field) -> dict[str, Any]:
    found: dict[str, Any] = dict(field.form.schema)
    if field.many:
        found = {"type": "array", "items": found}
    if field.default is not None and not field.required:
        found["default"] = list(field.default) if field.many else field.default
    return _described(found, field.form.allowed)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _described(found: dict[str, Any], about: str) -> dict[str, Any]:
    return {"description": about, **found}
