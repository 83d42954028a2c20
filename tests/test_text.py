"""A manifest printed again says the same."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from virttools.manifest.load import load
from virttools.manifest.merge import merge
from virttools.manifest.model import Layer, Manifest, Origin
from virttools.manifest.parse import parse
from virttools.manifest.text import document, lines

EVERY_KEY = Path(__file__).parent / "manifests" / "every-key.toml"
SOMEWHERE = Origin("somewhere", 1)


def read(text: str) -> Manifest:
    return merge([parse(Layer("a.toml", text))])


def nowhere(value: Any) -> Any:  # noqa: ANN401  any part of a manifest
    """The same, but as if every line were one."""
    if isinstance(value, Origin):
        return SOMEWHERE
    if isinstance(value, tuple):
        return tuple(nowhere(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{one.name: nowhere(getattr(value, one.name)) for one in fields(value)}
        )
    return value


def shipped(profile: str) -> Manifest:
    return load("a.com", manifest_file=None, profiles=[profile], addresses=()).manifest


@pytest.mark.parametrize(
    "manifest",
    [read(EVERY_KEY.read_text()), shipped("base"), shipped("login")],
    ids=["every-key", "base", "login"],
)
def test_a_printed_manifest_is_read_back_as_it_was(manifest: Manifest) -> None:
    """What `virt manifest show` prints could be a manifest itself, with the same meaning."""
    again = read("\n".join(line.text for line in lines(manifest)))
    assert nowhere(replace(again, origins=())) == nowhere(replace(manifest, origins=()))


def test_every_value_tells_where_it_came_from() -> None:
    """An item by its own line, a scalar by its key's."""
    printed = {
        line.text.strip(): line.origin for line in lines(read('link = "copy"\nbinaries = [\n"sh"]'))
    }
    assert printed['link = "copy"'] == Origin("a.toml", 1)
    assert printed['"sh",'] == Origin("a.toml", 3)


def test_json_has_every_key_and_octal_modes() -> None:
    """Scripts find each key, whether it was said or not."""
    found = document(read('directories = [{ path = "/tmp", mode = 0o1777 }]'))
    assert found["directories"][0]["mode"] == "1777"
    assert found["home"]["mode"] == "0750"
    assert set(found) == {one.name for one in fields(Manifest)} - {"origins"}
