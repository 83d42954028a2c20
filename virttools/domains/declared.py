"""What is declared: the merged manifest of a domain, as built or as it would be built."""

from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from virttools.errors import UnknownDomain
from virttools.manifest.load import load, reload
from virttools.manifest.model import Manifest, Origin
from virttools.tree.root import open_root


@dataclass(frozen=True, slots=True)
class Line:
    """One value of a merged manifest as TOML would say it, and where it came from."""

    text: str
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Declared:
    """A merged manifest, by key."""

    domain: str
    as_built: bool
    lines: tuple[Line, ...]
    values: dict[str, Any]

    def document(self) -> dict[str, Any]:
        return {"domain": self.domain, "as_built": self.as_built, "manifest": self.values}


def check(file: str) -> None:
    """Read one manifest with all that it includes. Raises ManifestError with every problem."""
    load("domain.invalid", manifest_file=file, profiles=(), addresses=())


def show(root_path: str, domain: str) -> Declared:
    """The manifest a domain was built from, else the one that `virt create` would take."""
    try:
        with open_root(root_path) as root:
            manifest, as_built = reload(root.read_record(domain).layers), True
    except UnknownDomain:
        manifest = load(domain, manifest_file=None, profiles=(), addresses=()).manifest
        as_built = False
    values = {name: _plain(value) for name, value in _items(manifest)}
    lines = tuple(
        line for name, value in _items(manifest) for line in _lines(manifest, name, value)
    )
    return Declared(domain, as_built, lines, values)


def _items(manifest: Manifest) -> list[tuple[str, Any]]:
    return [
        (field.name, getattr(manifest, field.name))
        for field in fields(manifest)
        if field.name != "origins"
    ]


def _lines(manifest: Manifest, key: str, value: Any) -> list[Line]:  # noqa: ANN401  any field
    origins = dict(manifest.origins)
    if isinstance(value, tuple):
        if not value:
            return []
        rows = [
            Line(
                f"    {_text(item)},",
                getattr(item, "origin", None) or origins.get(f"{key}[{index}]"),
            )
            for index, item in enumerate(value)
        ]
        return [Line(f"{key} = [", None), *rows, Line("]", None)]
    if is_dataclass(value):
        return [
            Line(
                f"{key}.{field.name} = {_text(getattr(value, field.name))}",
                origins.get(f"{key}.{field.name}"),
            )
            for field in fields(value)
            if getattr(value, field.name) not in (None, ())
        ]
    return [Line(f"{key} = {_text(value)}", origins.get(key))]


def _plain(value: Any) -> Any:  # noqa: ANN401  any field
    """A value as JSON has it; origins as "file:line"."""
    if isinstance(value, Origin):
        return str(value)
    if is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if getattr(value, field.name) is not None
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PurePosixPath | StrEnum):
        return str(value)
    return value


def _text(value: Any) -> str:  # noqa: ANN401  any field
    """A value as TOML says it, on one line; numbers named mode are octal."""
    if is_dataclass(value):
        pairs = [
            f"{field.name} = {_octal(field.name, getattr(value, field.name))}"
            for field in fields(value)
            if field.name != "origin" and getattr(value, field.name) not in (None, (), False)
        ]
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _octal(name: str, value: Any) -> str:  # noqa: ANN401  any field
    return f"0o{value:o}" if name == "mode" else _text(value)
