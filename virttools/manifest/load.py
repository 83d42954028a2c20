"""Chooses the layers of a domain's manifest, follows what they include, and merges them."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from virttools.errors import ManifestError, Problem
from virttools.manifest import merge, names, parse
from virttools.manifest.keys import PROFILES
from virttools.manifest.model import Layer, Manifest, Origin
from virttools.manifest.parse import CHOSEN, COMMAND_LINE, DEFAULT, ParsedLayer
from virttools.manifest.profiles import find, read

SITE = "/etc/virttools"
DEFAULT_PROFILES = ("base",)
_DEEPEST = 100
_ONLY_ADDRESSES = re.compile(r"addresses = \[[^\n]*\]\n")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest and the layers it was merged from, lowest first."""

    manifest: Manifest
    layers: tuple[Layer, ...]


def load(
    domain: str,
    *,
    manifest_file: str | None,
    profiles: Sequence[str],
    addresses: Sequence[str],
    site: str = SITE,
    defaults: Sequence[str] = DEFAULT_PROFILES,
    link: str | None = None,
    uid_base: int | str | None = None,
) -> Loaded:
    """The manifest of a domain (DESIGN 4): of `manifest_file`, else the site's own for the domain.

    `profiles` are included after those that the file includes; without a file they are all there
    is, and without both it is `defaults`. Raises ManifestError with all that is wrong in any layer,
    and BadName.
    """
    main = _main(names.domain(domain), manifest_file, site)
    if main is None and not profiles:
        main = Layer(DEFAULT, _options(defaults, ()))
    ends = [] if main is None else [main]
    said = _options(profiles, addresses, {"link": link, "uid_base": uid_base})
    if said:
        ends.append(Layer(COMMAND_LINE, said))
    return _together(tuple(ends), site)


@lru_cache(maxsize=64)
def _together(ends: tuple[Layer, ...], site: str) -> Loaded:
    """What these layers and all that they include come to; a thousand domains often share them."""
    gathering = _Gathering(f"{site}/profiles")
    read_ends = [gathering.understood(layer) for layer in ends]
    for parsed in read_ends:
        gathering.include(parsed, ())
    for layer, parsed in zip(ends, read_ends, strict=True):
        gathering.add(layer, parsed)
    return Loaded(gathering.merged(ends[0].file if ends else DEFAULT), tuple(gathering.layers))


def reload(layers: Sequence[Layer]) -> Manifest:
    """The manifest of a record, from its layers alone. Raises ManifestError."""
    gathering = _Gathering("")
    for layer in layers:
        gathering.add(layer, gathering.understood(layer))
    return gathering.merged("the recorded manifest")


def with_uid_base(loaded: Loaded, uid_base: int) -> Loaded:
    """The manifest with the number that was chosen for it: one more layer, which the record keeps."""
    layers = (*loaded.layers, Layer(CHOSEN, f"uid_base = {uid_base}\n"))
    return Loaded(reload(layers), layers)


def with_addresses(layers: Sequence[Layer], addresses: Sequence[str]) -> tuple[Layer, ...]:
    """The layers of a record, with these addresses instead of those that they declare."""
    kept = list(layers)
    while kept and kept[-1].file == COMMAND_LINE and _ONLY_ADDRESSES.fullmatch(kept[-1].text):
        kept.pop()
    reset = Layer(COMMAND_LINE, "addresses = []\n")
    given = [Layer(COMMAND_LINE, _options((), addresses))] if addresses else []
    return (*kept, reset, *given)


def _main(domain: str, manifest_file: str | None, site: str) -> Layer | None:
    if manifest_file is not None:
        return read(manifest_file)
    own = f"{site}/manifests/{domain}.toml"
    return read(own) if os.path.lexists(own) else None


def _options(
    profiles: Sequence[str],
    addresses: Sequence[str],
    scalars: Mapping[str, int | str | None] | None = None,
) -> str:
    """What options ask for, as a manifest says it, so that a record can be read again."""
    lists = {PROFILES: list(dict.fromkeys(profiles)), "addresses": list(addresses)}
    single = "".join(
        f"{key} = {_toml(value) if isinstance(value, str) else value}\n"
        for key, value in (scalars or {}).items()
        if value is not None
    )
    return single + "".join(
        f"{key} = [{', '.join(_toml(word) for word in words)}]\n"
        for key, words in lists.items()
        if words
    )


def _toml(text: str) -> str:
    """JSON's strings are TOML's, but for DEL, and for characters beyond 16 bits if escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@lru_cache(maxsize=256)
def _read(layer: Layer) -> tuple[ParsedLayer, tuple[Problem, ...]]:
    """A thousand records hold the same profiles: each text is read once."""
    return parse.read(layer)


class _Gathering:
    """The layers met so far, lowest first, and what was wrong with them."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._parsed: list[ParsedLayer] = []
        self._problems: list[Problem] = []
        self._met: set[str] = set()
        self.layers: list[Layer] = []

    def understood(self, layer: Layer) -> ParsedLayer:
        parsed, problems = _read(layer)
        self._problems += problems
        return parsed

    def add(self, layer: Layer, parsed: ParsedLayer) -> None:
        self.layers.append(layer)
        self._parsed.append(parsed)

    def include(self, parsed: ParsedLayer, chain: tuple[str, ...]) -> None:
        """Add the profiles that a layer names: depth first, each once."""
        for item in parsed.items(PROFILES):
            name: str = item.value
            if name in chain:
                loop = " -> ".join((*chain[chain.index(name) :], name))
                self._wrong(item.origin, f"profiles include each other: {loop}")
            elif len(chain) == _DEEPEST:
                self._wrong(item.origin, f"profiles include each other {_DEEPEST} deep")
            elif name not in self._met:
                self._met.add(name)
                self._profile(name, item.origin, chain)

    def _profile(self, name: str, origin: Origin, chain: tuple[str, ...]) -> None:
        try:
            layer = find(name, site=self._site)
        except ManifestError as error:
            hint = f", {error.hint}" if error.hint else ""
            self._wrong(origin, f"{error.message}{hint}")
            return
        parsed = self.understood(layer)
        self.include(parsed, (*chain, name))
        self.add(layer, parsed)

    def _wrong(self, origin: Origin, message: str) -> None:
        self._problems.append(Problem(origin.file, origin.line, message))

    def merged(self, what: str) -> Manifest:
        if self._problems:
            files = list(dict.fromkeys(problem.file for problem in self._problems))
            ordered = sorted(self._problems, key=lambda it: (files.index(it.file), it.line))
            raise ManifestError(
                f"cannot use {what}: {parse.count(ordered)}", problems=tuple(ordered)
            )
        return merge.merge(self._parsed)
