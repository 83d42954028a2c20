"""Values: what an image is made of, package by package, for the documents that say so."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from virttools.host.facts import Details
from virttools.image.items import Item
from virttools.tree.record import Entry


@dataclass(frozen=True, slots=True)
class File:
    """A file of an image, by its path from inside; digests in hex."""

    path: str
    sha1: str
    sha256: str

    @property
    def name(self) -> str:
        r"""The path in documents, which are UTF-8: a byte that is none stands there as \xNN."""
        return self.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    @property
    def identity(self) -> str:
        """Another one for each path, whatever its bytes."""
        return hashlib.sha256(self.path.encode("utf-8", "surrogateescape")).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Part:
    """A package, and which of its files are in the image; total: how many it has, None where not known."""

    package: str
    version: str
    files: tuple[File, ...]
    details: Details | None

    @property
    def is_partial(self) -> bool:
        return self.total is not None and len(self.files) < self.total

    @property
    def total(self) -> int | None:
        return None if self.details is None else self.details.files

    @property
    def extent(self) -> str:
        """In words."""
        if self.total is None:
            return f"{len(self.files)} files of it"
        return f"{len(self.files)} of its {self.total} files"

    def purl(self, distribution: str) -> str:
        """The package URL: https://github.com/package-url/purl-spec, types deb and rpm."""
        kind = self.details.kind if self.details else "deb"
        namespace = f"/{distribution}" if distribution else ""
        machine = self.details.architecture if self.details else ""
        ending = f"?arch={machine}" if machine else ""
        return f"pkg:{kind}{namespace}/{_quoted(self.package)}@{_quoted(self.version)}{ending}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """All of an image. own: files that no package brought. epoch: seconds since 1970.

    distribution: ID of os-release(5). identity: digest (hex) of all of it, the same for equal images.
    """

    name: str
    epoch: int
    distribution: str
    parts: tuple[Part, ...]
    own: tuple[File, ...]
    identity: str


def draw(
    name: str,
    items: Sequence[Item],
    entries: Iterable[Entry],
    sha1s: Mapping[str, str],
    details: Mapping[str, Details],
    *,
    distribution: str,
    epoch: int,
) -> Bill:
    """The bill of an image. entries: of the record; sha1s: by path of items; details: by package.

    A file that is not any more what its package shipped is nobody's but ours.
    """
    recorded = {entry.path[1:]: entry for entry in entries}
    parts: dict[tuple[str, str], list[File]] = {}
    own = []
    identity = hashlib.sha256(f"{name} {epoch} {distribution}".encode())
    for item in items:
        identity.update(repr(item).encode("utf-8", "surrogateescape"))
        if item.type != "file" or item.sha256 is None:
            continue
        file = File(f"/{item.path}", sha1s[item.path], item.sha256)
        entry = recorded.get(item.path)
        if entry is None or entry.package is None or entry.sha256 != item.sha256:
            own.append(file)
        else:
            parts.setdefault((entry.package, entry.version or ""), []).append(file)
    return Bill(
        name=name,
        epoch=epoch,
        distribution=distribution,
        parts=tuple(
            Part(package, version, tuple(files), _fitting(details.get(package), version))
            for (package, version), files in sorted(parts.items())
        ),
        own=tuple(own),
        identity=identity.hexdigest(),
    )


def _fitting(details: Details | None, version: str) -> Details | None:
    """What the host says of another version would be said of the wrong one."""
    return details if details is not None and details.version == version else None


def _quoted(text: str) -> str:
    """Percent-encoded as the specification has it: "+" and "~" stand, ":" too."""
    from urllib.parse import quote

    return quote(text, safe=":~+").replace("+", "%2B")
