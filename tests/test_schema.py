"""The JSON Schema says what the parser does, since both come from one table."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from virttools.manifest import keys, parse
from virttools.manifest.model import Layer
from virttools.manifest.schema import schema

EVERY_KEY = (Path(__file__).parent / "manifests" / "every-key.toml").read_text()
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
}


def fits(value: Any, rule: dict[str, Any]) -> bool:  # noqa: ANN401  any JSON
    """As much of JSON Schema as ours uses; an unknown keyword is a failure."""
    known = {"$schema", "title", "description", "default", "properties", "additionalProperties"}
    known |= {"type", "enum", "pattern", "minimum", "maximum", "maxLength", "required", "items"}
    assert set(rule) <= known | {"anyOf", "uniqueItems"}
    if "anyOf" in rule:
        return any(fits(value, inner) for inner in rule["anyOf"])
    if not isinstance(value, TYPES[rule["type"]]) or (
        rule["type"] == "integer" and isinstance(value, bool)
    ):
        return False
    match value:
        case dict():
            return fits_table(value, rule)
        case list():
            return all(fits(item, rule["items"]) for item in value)
        case str():
            return fits_text(value, rule)
        case _:
            return bool(rule.get("minimum", value) <= value <= rule.get("maximum", value))


def fits_table(value: dict[str, Any], rule: dict[str, Any]) -> bool:
    properties = rule["properties"]
    assert rule["additionalProperties"] is False
    return set(rule.get("required", ())) <= set(value) <= set(properties) and all(
        fits(inner, properties[key]) for key, inner in value.items()
    )


def fits_text(value: str, rule: dict[str, Any]) -> bool:
    if value not in rule.get("enum", [value]) or len(value) > rule.get("maxLength", len(value)):
        return False
    pattern = re.sub(r"\$$", r"\\Z", rule.get("pattern", ""))  # ECMA's $ is the very end
    return re.search(pattern, value) is not None


def test_every_key_has_its_place() -> None:
    """No key of the tables is missing, and none is there besides."""
    found = schema()
    assert list(found["properties"]) == list(keys.TOP)
    for name, key in keys.TOP.items():
        rule = found["properties"][name]
        assert rule["description"]
        match key:
            case keys.Section():
                assert list(rule["properties"]) == list(key.keys)
            case keys.Items():
                table = rule["items"].get("anyOf", [rule["items"]])[-1]
                assert list(table["properties"]) == list(key.fields)
                required = [field for field, form in key.fields.items() if form.required]
                assert table.get("required", []) == required
            case _:
                pass


def test_it_is_json() -> None:
    """What editors get can be written down, and says which dialect it is."""
    found = json.loads(json.dumps(schema()))
    assert found == schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_manifest_with_every_key_fits() -> None:
    """What the parser takes, the schema takes."""
    assert fits(tomllib.loads(EVERY_KEY), schema())
    assert fits({"uid_base": "auto"}, schema())


@pytest.mark.parametrize(
    "text",
    [
        "other = 1",
        "uid_base = true",
        "uid_base = -1",
        'uid_base = "1"',
        'link = "harrd"',
        'binaries = "ls"',
        'binaries = ["bin/ls"]',
        'binaries = ["-x"]',
        'files = ["a"]',
        'files = ["/a/../b"]',
        'files = ["/a/.."]',
        'files = ["/a\\nb"]',
        'setuid = ["/a\\n"]',
        "files = [{ to = '/x' }]",
        'templates = [{ from = "../x", to = "/x" }]',
        'devices = ["nul"]',
        'users = [{ name = "0" }]',
        'users = [{ name = "bob", password = "secret" }]',
        'users = [{ name = "bob", gecos = "a:b" }]',
        'users = [{ name = "bob", home = "/a:b" }]',
        "services = [{ name = 'x', program = '/x', port = 65536 }]",
        "services = [{ name = 'x', program = '/x', every = '1 h' }]",
        "home.mode = 0o10000",
        'etc.skeleton = ["pasword"]',
        'etc.timezone = "../x"',
        "etc.other = 1",
        'profiles = ["a/b"]',
    ],
)
def test_what_does_not_fit_is_a_fault_for_the_parser_too(text: str) -> None:
    """An editor and `virt create` say the same of common slips."""
    assert not fits(tomllib.loads(text), schema())
    assert parse.read(Layer("m.toml", text))[1]


@pytest.mark.parametrize(
    "text",
    [
        'binaries = ["[", "/usr/bin/["]',
        'files = ["/a..b/..c", "/"]',
        'templates = [{ from = "a/b.j2", to = "/x" }, { from = "/x/y", to = "/y" }]',
        'scrub.operations = "default,-x"',
        'scrub.operations = ["default", "-x"]',
        'users = [{ name = "_apt", password = "!$6$a$b" }]',
        "etc = {}",
        'etc.timezone = "America/Argentina/Buenos_Aires"',
        "packages = []",
    ],
)
def test_odd_but_right_values_fit(text: str) -> None:
    """Names that look wrong and are not."""
    assert fits(tomllib.loads(text), schema())
    assert text.startswith("files") or not parse.read(Layer("m.toml", text))[1]
