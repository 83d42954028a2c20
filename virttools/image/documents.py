"""Values: the JSON documents of an image, by the OCI image specification 1.1 and docker's own archive format.

Canonical: sorted keys, no blanks, so that equal images are equal bytes.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from virttools.errors import ManifestError, UsageError
from virttools.manifest import model


class Compression(StrEnum):
    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYERS = {
    Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
    Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
}
TAG = "org.opencontainers.image.ref.name"
_CREATED = "org.opencontainers.image.created"
_KEY = "com.virttools.layer.key"
_DIFF_ID = "com.virttools.layer.diff-id"

# https://go.dev/doc/install/source#environment, by what uname(2) says
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What points to a blob. digest: "sha256:…"; size: bytes."""

    media_type: str
    digest: str
    size: int
    annotations: tuple[tuple[str, str], ...] = ()
    platform: tuple[str, str] | None = None
    artifact_type: str | None = None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        if self.platform is not None:
            found["platform"] = _platform(self.platform)
        if self.artifact_type is not None:
            found["artifactType"] = self.artifact_type
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A layer as a blob. diff_id: digest of the tar; key: of the items that it holds."""

    name: str
    media_type: str
    digest: str
    size: int
    diff_id: str
    key: str

    def descriptor(self) -> Descriptor:
        notes = ((_DIFF_ID, self.diff_id), (_KEY, self.key))
        return Descriptor(
            media_type=self.media_type, digest=self.digest, size=self.size, annotations=notes
        )


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document that hangs on an image, such as an SBOM. kind: its media type."""

    kind: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the documents say beside the layers. epoch: seconds since 1970; user: "uid:gid" or None."""

    domain: str
    image: model.Image
    epoch: int
    architecture: tuple[str, str]
    user: str | None


def encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def blob(media_type: str, content: bytes, **more: Any) -> Descriptor:  # noqa: ANN401  of a descriptor
    """The descriptor of a document."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Descriptor(media_type=media_type, digest=digest, size=len(content), **more)


def architecture(name: str) -> tuple[str, str]:
    """(architecture, variant) as Go names them, by that name or by the one of uname(2). Raises UsageError."""
    known = dict(_ARCHITECTURES.values())
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    if name in known:
        return name, known[name]
    raise UsageError(f"cannot make an image for {name!r}: there are {', '.join(sorted(known))}")


def tag(text: str) -> str:
    """A tag of the distribution specification 1.1. Raises UsageError."""
    if not _TAG.fullmatch(text):
        raise UsageError(
            f"cannot tag an image {text!r}: a tag is up to 128 letters, digits, _ . and -",
            hint="a registry and a name belong into --push",
        )
    return text


def config(about: About, layers: Sequence[Packed]) -> bytes:
    """The configuration: what a runtime starts, and what the layers unpack to."""
    image = about.image
    run: dict[str, Any] = {
        "Env": list(image.env)
        if any(pair.startswith("PATH=") for pair in image.env)
        else ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *image.env],
    }
    for name, value in (
        ("Entrypoint", list(image.entrypoint)),
        ("Cmd", list(image.cmd)),
        ("User", about.user),
        ("WorkingDir", image.workdir and str(image.workdir)),
        ("ExposedPorts", {port: {} for port in image.ports}),
        ("Volumes", {str(path): {} for path in image.volumes}),
        ("Labels", _pairs(image.labels)),
        ("StopSignal", image.stop_signal),
    ):
        if value:
            run |= {name: value}
    return encode(
        {
            "created": moment(about.epoch),
            "os": "linux",
            **_architecture(about.architecture),
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [
                {
                    "created": moment(about.epoch),
                    "created_by": "virt image",
                    "comment": layer.name,
                }
                for layer in layers
            ],
        }
    )


def manifest(about: About, config_blob: bytes, layers: Sequence[Packed]) -> bytes:
    notes = {
        _CREATED: moment(about.epoch),
        "org.opencontainers.image.title": about.domain,
        **_pairs(about.image.annotations),
    }
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob(CONFIG, config_blob).document(),
            "layers": [layer.descriptor().document() for layer in layers],
            "annotations": notes,
        }
    )


def referrer(subject: Descriptor, artifact_type: str, content: Descriptor, epoch: int) -> bytes:
    """A manifest that hangs a document, such as an SBOM, on an image (OCI 1.1, subject)."""
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": blob(EMPTY, b"{}").document(),
            "layers": [content.document()],
            "subject": replace(subject, annotations=(), platform=None).document(),
            "annotations": {_CREATED: moment(epoch)},
        }
    )


def index(descriptors: Sequence[Descriptor]) -> bytes:
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [one.document() for one in descriptors],
        }
    )


def docker_manifest(config_name: str, layer_names: Sequence[str], tags: Sequence[str]) -> bytes:
    """manifest.json of `docker save`."""
    return encode_list(
        [{"Config": config_name, "RepoTags": list(tags), "Layers": list(layer_names)}]
    )


def encode_list(documents: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps(documents, sort_keys=True, separators=(",", ":")).encode()


def moment(epoch: int) -> str:
    """RFC 3339, as the specification asks for."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- reading back


def descriptors(text: bytes, name: str) -> tuple[Descriptor, ...]:
    """What an index, or the layers of a manifest, point to. Raises ManifestError where it is none."""
    found = document(text, name)
    rows = found.get("manifests", found.get("layers"))
    if not isinstance(rows, list):
        raise _damaged(name, "it lists neither manifests nor layers")
    return tuple(descriptor(row, name) for row in rows)


def descriptor(row: object, name: str) -> Descriptor:
    """One descriptor of a document that somebody else wrote. Raises ManifestError."""
    if not isinstance(row, dict):
        raise _damaged(name, "a descriptor is no object")
    digest, size, kind = row.get("digest"), row.get("size"), row.get("mediaType", "")
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _damaged(name, f"{digest!r} is no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(kind, str):
        raise _damaged(name, "a descriptor lacks size or mediaType")
    notes = row.get("annotations") or {}
    if not isinstance(notes, dict):
        raise _damaged(name, "annotations are no object")
    machine = row.get("platform") or {}
    platform = None
    if isinstance(machine, dict) and machine:
        platform = (str(machine.get("architecture", "")), str(machine.get("variant", "")))
    artifact = row.get("artifactType")
    return Descriptor(
        media_type=kind,
        digest=digest,
        size=size,
        annotations=tuple((str(key), str(value)) for key, value in notes.items()),
        platform=platform,
        artifact_type=artifact if isinstance(artifact, str) else None,
    )


def document(text: bytes, name: str) -> dict[str, Any]:
    """A JSON object. Raises ManifestError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(name, "it is no JSON") from error
    if not isinstance(found, dict):
        raise _damaged(name, "it is no JSON object")
    return found


def remembered(text: bytes, name: str) -> dict[str, Packed]:
    """The layers of a manifest of ours, by what they hold."""
    found = {}
    for layer in descriptors(text, name):
        notes = dict(layer.annotations)
        if _KEY in notes and _DIFF_ID in notes:
            found[notes[_KEY]] = Packed(
                name="",
                media_type=layer.media_type,
                digest=layer.digest,
                size=layer.size,
                diff_id=notes[_DIFF_ID],
                key=notes[_KEY],
            )
    return found


def _damaged(name: str, cause: str) -> ManifestError:
    return ManifestError(
        f"cannot read {name}: {cause}", hint="it is no OCI image layout, or a damaged one"
    )


def _architecture(found: tuple[str, str]) -> dict[str, str]:
    name, variant = found
    return {"architecture": name, "variant": variant} if variant else {"architecture": name}


def _platform(found: tuple[str, str]) -> dict[str, str]:
    return {"os": "linux", **_architecture(found)}


def _pairs(words: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}
