"""Doer: puts an image together in a layout: layers, configuration, manifest, and what the index says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from virttools.image import documents, items, walk
from virttools.image.documents import About, Attachment, Compression, Descriptor, Packed
from virttools.image.items import Layer
from virttools.image.layout import Layout
from virttools.image.pack import Hashing, Packer
from virttools.image.stream import Archive


@dataclass(frozen=True, slots=True)
class Assembled:
    """An image in a layout. reused: how many layers were there already; before: digest of what had the tag."""

    manifest: Descriptor
    config: bytes
    layers: tuple[Packed, ...]
    reused: int
    before: str | None


def assemble(
    layout: Layout,
    tree_fd: int,
    layers: Sequence[Layer],
    about: About,
    *,
    compression: Compression,
    tags: Sequence[str],
    attachments: Sequence[Attachment] = (),
    advance: walk.Advance = lambda _: None,
) -> Assembled:
    """Write all blobs of an image and list it under its tags. A layer that is there is not packed anew."""
    listed = layout.index()
    known = _known(layout, listed)
    packed: list[Packed] = []
    reused = 0
    for layer in layers:
        key = items.key(layer, compression)
        found = known.get(key)
        if found is not None and layout.has(found.descriptor()):
            packed.append(replace(found, name=layer.name))
            advance(layer.size)
            reused += 1
        else:
            packed.append(_pack(layout, tree_fd, layer, key, compression, advance))
    config = documents.config(about, packed)
    layout.add(config, documents.CONFIG)
    made = layout.add(
        documents.manifest(about, config, packed),
        documents.MANIFEST,
        platform=about.architecture,
    )
    others = [one for one in listed if one.artifact_type is None]
    before = _holder(layout, others, tags[0], about.architecture)
    for tag in tags:
        others = _listed(layout, others, made, tag)
    referrers = _referrers(layout, listed, others)
    referrers += [_attached(layout, made, one, about.epoch) for one in attachments]
    layout.commit([*others, *_once(referrers)], listed)
    return Assembled(made, config, tuple(packed), reused, before)


def _pack(  # noqa: PLR0917  what a layer is made of
    layout: Layout,
    tree_fd: int,
    layer: Layer,
    key: str,
    compression: Compression,
    advance: walk.Advance,
) -> Packed:
    plain = ""

    def write(sink: Hashing) -> None:
        nonlocal plain
        with Packer(sink, compression) as packer:
            archive = Archive(packer)
            archive.tree(tree_fd, layer.items, advance)
            archive.end()
        plain = packer.plain_sha256

    digest, size = layout.write(write)
    return Packed(
        name=layer.name,
        media_type=documents.LAYERS[compression],
        digest=digest,
        size=size,
        diff_id=f"sha256:{plain}",
        key=key,
    )


def _known(layout: Layout, listed: Sequence[Descriptor]) -> Mapping[str, Packed]:
    """The layers of all images of a layout, by what they hold."""
    found: dict[str, Packed] = {}
    for one in listed:
        for manifest in _manifests(layout, one):
            found |= documents.remembered(layout.read(manifest.digest), manifest.digest)
    return found


def _manifests(layout: Layout, one: Descriptor) -> Sequence[Descriptor]:
    """The manifests of an entry: itself, or those of the index that it is, one for each architecture."""
    if one.media_type == documents.INDEX:
        return documents.descriptors(layout.read(one.digest), one.digest)
    return [one] if one.media_type == documents.MANIFEST else []


def _tagged(one: Descriptor, tag: str) -> bool:
    return dict(one.annotations).get(documents.TAG) == tag


def _holder(
    layout: Layout, listed: Sequence[Descriptor], tag: str, architecture: tuple[str, str]
) -> str | None:
    """The digest of the image that has a tag, for that architecture."""
    for one in listed:
        if _tagged(one, tag):
            for manifest in _manifests(layout, one):
                if manifest.platform in (None, architecture):
                    return manifest.digest
    return None


def _listed(
    layout: Layout, listed: Sequence[Descriptor], made: Descriptor, tag: str
) -> list[Descriptor]:
    """The entries of an index, with the image under its tag beside those for other architectures."""
    others: dict[tuple[str, str], Descriptor] = {}
    for one in listed:
        if _tagged(one, tag):
            for manifest in _manifests(layout, one):
                if manifest.platform not in (None, made.platform):
                    assert manifest.platform is not None
                    others[manifest.platform] = replace(manifest, annotations=())
    entry = made
    if others and made.platform is not None:
        others[made.platform] = made
        together = documents.index([others[name] for name in sorted(others)])
        entry = layout.add(together, documents.INDEX)
    kept = [one for one in listed if not _tagged(one, tag)]
    return [*kept, replace(entry, annotations=((documents.TAG, tag),))]


def _referrers(
    layout: Layout, listed: Sequence[Descriptor], images: Sequence[Descriptor]
) -> list[Descriptor]:
    """What hangs on an image that is still there."""
    there = {manifest.digest for one in images for manifest in _manifests(layout, one)}
    found = []
    for one in listed:
        if one.artifact_type is not None:
            subject = documents.document(layout.read(one.digest), one.digest).get("subject")
            if isinstance(subject, dict) and subject.get("digest") in there:
                found.append(one)
    return found


def _attached(layout: Layout, image: Descriptor, one: Attachment, epoch: int) -> Descriptor:
    layout.add(b"{}", documents.EMPTY)
    content = layout.add(one.content, one.kind)
    return layout.add(
        documents.referrer(image, one.kind, content, epoch),
        documents.MANIFEST,
        artifact_type=one.kind,
    )


def _once(found: Sequence[Descriptor]) -> list[Descriptor]:
    return list({one.digest: one for one in found}.values())
