"""Images: of a published domain, or straight from a manifest, which leaves no domain behind."""

import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from virttools.domains.wish import Advance, Options, Wish
from virttools.enter import accounts, userns
from virttools.errors import CheckFailed, ConfigError, ManifestError, UsageError
from virttools.image import (
    archives,
    assemble,
    differences,
    documents,
    folder,
    intended,
    items,
    layout,
    output,
    walk,
)
from virttools.image import bill as drawing
from virttools.image.assemble import Assembled
from virttools.image.bill import Bill
from virttools.image.differences import Change
from virttools.image.documents import About, Attachment, Compression
from virttools.image.items import Item, Layer
from virttools.manifest.load import reload
from virttools.manifest.model import Layers, Manifest
from virttools.scrub.findings import printable
from virttools.tree import beneath, ids
from virttools.tree.record import Record
from virttools.tree.root import open_root

_LONGEST_ACCOUNTS = 16 << 20


def _spdx(bill: Bill) -> Attachment:
    from virttools.image import spdx

    return Attachment(spdx.MEDIA_TYPE, spdx.document(bill))


def _cyclonedx(bill: Bill) -> Attachment:
    from virttools.image import cyclonedx

    return Attachment(cyclonedx.MEDIA_TYPE, cyclonedx.document(bill))


SBOMS: Mapping[str, Callable[[Bill], Attachment]] = {"spdx": _spdx, "cyclonedx": _cyclonedx}
"""The documents that say what an image is made of."""


class Format(StrEnum):
    TAR = "tar"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"
    SQUASHFS = "squashfs"
    DIR = "dir"


_LAYERED = (Format.OCI, Format.OCI_ARCHIVE, Format.DOCKER_ARCHIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to make of a tree. epoch: no time in it is later, seconds since 1970; compression None: as FORMAT has it."""

    out: str
    format: Format
    tags: tuple[str, ...] = ("latest",)
    compression: Compression | None = None
    architecture: tuple[str, str] = field(
        default_factory=lambda: documents.architecture(os.uname().machine)
    )
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """A tree that nobody of us changes while it is open, what it was made from, and what is in it."""

    tree_fd: int
    record: Record
    manifest: Manifest
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An image. digest: "sha256:…" of its manifest, or of the one file; None of a folder.

    is_changed: whether something else, or nothing, was there before. size: bytes of all contents.
    """

    domain: str
    out: str
    format: Format
    entries: int
    size: int
    digest: str | None
    layers: tuple[documents.Packed, ...] = ()
    reused: int = 0
    is_changed: bool = True


@contextmanager
def published(root_path: str, domain: str) -> Generator[Source, None, None]:
    """A domain as it is now, for a `with`. Raises UnknownDomain, Busy, SecretFound."""
    from virttools.domains import scrubbing

    with observed(root_path, domain) as source:
        as_shipped = items.as_shipped(source.items, source.record.entries)
        scrubbing.refuse_secrets(
            root_path, source.tree_fd, source.record, source.manifest, as_shipped
        )
        yield source


@contextmanager
def observed(root_path: str, domain: str) -> Generator[Source, None, None]:
    """A domain as it is now, its secrets included, for a `with`. Raises UnknownDomain, Busy."""
    with (
        open_root(root_path) as root,
        root.lock(domain, shared=True),
        root.open_tree(domain) as tree_fd,
    ):
        record = root.read_record(domain)
        userns.enter()
        yield Source(tree_fd, record, reload(record.layers), walk.items(tree_fd))


@contextmanager
def built(
    root_path: str, wish: Wish, options: Options, advance: Advance
) -> Generator[Source, None, None]:
    """The tree of a manifest, for a `with`; nothing stays of it. Raises as `create` does."""
    from virttools.domains import create as creating

    with creating.unpublished(root_path, wish, options, advance=advance) as (made, record, _):
        yield Source(made.tree_fd, record, wish.loaded.manifest, walk.items(made.tree_fd))


def look(source: Source, epoch: int) -> tuple[Item, ...]:
    """What an image of it will hold. epoch: no time in it is later, seconds since 1970."""
    found = items.clamped(source.items, epoch)
    return intended.items(found, source.record.entries, ids.here())


def bill(source: Source, found: Sequence[Item], epoch: int, *, source_root: str = "/") -> Bill:
    """What an image of it is made of. source_root: the system that its packages came from."""
    from virttools.host.packages import Packages
    from virttools.host.sysroot import Sysroot

    sysroot = Sysroot(source_root)
    packages = Packages(sysroot)
    names = sorted({entry.package for entry in source.record.entries if entry.package})
    release = (sysroot.read("/etc/os-release") or b"").decode(errors="replace")
    identity = re.search(r'^ID="?([a-z0-9._-]+)', release, re.MULTILINE)
    return drawing.draw(
        source.record.domain,
        found,
        source.record.entries,
        walk.sha1s(source.tree_fd, found),
        {name: details for name in names if (details := packages.details(name)) is not None},
        distribution=identity[1] if identity else "",
        epoch=epoch,
    )


def require_place(wanted: Wanted) -> None:
    """Refuse before anything is built what `write` would refuse. Raises DomainExists, UsageError."""
    out = wanted.out
    match wanted.format:
        case Format.OCI if os.path.isdir(out) and os.listdir(out):
            layout.require(out)
        case Format.OCI | Format.DIR:
            output.require_folder(out)
        case _:
            output.require_file(out)


def write(
    source: Source,
    found: Sequence[Item],
    wanted: Wanted,
    *,
    attachments: Sequence[Attachment] = (),
    advance: Advance = lambda _more, _total: None,
) -> Made:
    """Make the image. Raises DomainExists, Busy, HostLacks, ApplyError, UsageError."""
    if wanted.format in _LAYERED and (path := items.whiteout(found)) is not None:
        raise ManifestError(
            f"cannot put /{printable(path)} into a layer: a name with .wh. in front deletes others there",
            hint="rename or remove it, or take --format tar",
        )
    total = sum(item.size for item in found if item.link is None)
    job = _Job(source, tuple(found), wanted, tuple(attachments), lambda more: advance(more, total))
    match wanted.format:
        case Format.TAR:
            return job.tar()
        case Format.OCI:
            return job.oci()
        case Format.OCI_ARCHIVE | Format.DOCKER_ARCHIVE:
            return job.archive()
        case Format.SQUASHFS:
            return job.squashfs()
        case Format.DIR:
            return job.folder()


def save(path: str, content: bytes) -> None:
    """Write a document beside an image, whole or not at all. Raises DomainExists, ApplyError."""
    with output.file(path) as file:
        file.write(content)


def refuse_difference(first: Sequence[Item], second: Sequence[Item]) -> None:
    """Raises CheckFailed naming the first path by which two builds differ."""
    for found in differences.between(first, second):
        what = "is in one of two builds only"
        if found.change is Change.CHANGED:
            what = f"differs between two builds in {', '.join(found.parts)}"
        raise CheckFailed(f"cannot reproduce the image: /{printable(found.path)} {what}")


@dataclass(frozen=True, slots=True)
class _Job:
    source: Source
    items: tuple[Item, ...]
    wanted: Wanted
    attachments: tuple[Attachment, ...]
    advance: walk.Advance

    def tar(self) -> Made:
        wanted = self.wanted
        before = output.digest(wanted.out)
        compression = wanted.compression or compression_of(wanted.out)
        with output.file(wanted.out) as file:
            digest = archives.tar(file, self.source.tree_fd, self.items, compression, self.advance)
        return self._made(digest=f"sha256:{digest}", is_changed=digest != before)

    def oci(self) -> Made:
        out = self.wanted.out
        if os.path.isdir(out) and os.listdir(out):
            with layout.existing(out) as found:
                return self._made_of(self._assembled(found))
        with output.folder(out) as folder_fd:
            os.fchmod(folder_fd, 0o755)
            with layout.Layout(folder_fd) as found:
                return self._made_of(self._assembled(found))

    def archive(self) -> Made:
        wanted = self.wanted
        before = output.digest(wanted.out)
        is_oci = wanted.format is Format.OCI_ARCHIVE
        with output.scratch(wanted.out) as scratch:
            fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with layout.Layout(fd) as found, output.file(wanted.out) as file:
                    image = self._assembled(found, None if is_oci else Compression.NONE)
                    if is_oci:
                        digest = archives.oci(file, scratch, wanted.epoch)
                    else:
                        names = [f"{self.source.record.domain}:{tag}" for tag in wanted.tags]
                        digest = archives.docker(file, found, image, names, wanted.epoch)
            finally:
                os.close(fd)
        made = image.manifest.digest if is_oci else f"sha256:{digest}"
        return self._made(digest=made, layers=image.layers, is_changed=digest != before)

    def squashfs(self) -> Made:
        wanted = self.wanted
        if wanted.out == output.STDOUT:
            raise UsageError("cannot write squashfs to standard output: name a file: -o FILE")
        before = output.digest(wanted.out)
        with output.scratch(wanted.out) as scratch:
            with open(os.path.join(scratch, "tree.tar"), "w+b") as tree:
                archives.tar(tree, self.source.tree_fd, self.items, Compression.NONE, self.advance)
                tree.seek(0)
                made = os.path.join(scratch, "tree.squashfs")
                archives.squashfs(made, tree, self.items[0], wanted.epoch)
            with open(made, "rb") as found, output.file(wanted.out) as file:
                while block := found.read(1 << 20):
                    file.write(block)
        digest = output.digest(wanted.out)
        return self._made(digest=f"sha256:{digest}", is_changed=digest != before)

    def folder(self) -> Made:
        with output.folder(self.wanted.out) as folder_fd:
            folder.write(folder_fd, self.source.tree_fd, self.items, self.advance)
        return self._made(digest=None)

    def _assembled(self, found: layout.Layout, compression: Compression | None = None) -> Assembled:
        wanted = self.wanted
        image = self.source.manifest.image
        about = About(
            domain=self.source.record.domain,
            image=image,
            epoch=wanted.epoch,
            architecture=wanted.architecture,
            user=_user(self.source.tree_fd, image.user),
        )
        return assemble.assemble(
            found,
            self.source.tree_fd,
            self._layers(image.layers),
            about,
            compression=compression or wanted.compression or Compression.GZIP,
            tags=wanted.tags,
            attachments=self.attachments,
            advance=self.advance,
        )

    def _layers(self, how: Layers) -> tuple[Layer, ...]:
        return items.cut(self.items, self.source.record, how)

    def _made_of(self, image: Assembled) -> Made:
        return self._made(
            digest=image.manifest.digest,
            layers=image.layers,
            reused=image.reused,
            is_changed=image.manifest.digest != image.before,
        )

    def _made(
        self,
        *,
        digest: str | None,
        layers: tuple[documents.Packed, ...] = (),
        reused: int = 0,
        is_changed: bool = True,
    ) -> Made:
        return Made(
            domain=self.source.record.domain,
            out=self.wanted.out,
            format=self.wanted.format,
            entries=len(self.items),
            size=sum(item.size for item in self.items if item.link is None),
            digest=digest,
            layers=layers,
            reused=reused,
            is_changed=is_changed,
        )


def compression_of(name: str) -> Compression:
    """What the name of an archive promises: .gz and .tgz, .zst, or none."""
    if re.search(r"\.(?:t?gz)$", name):
        return Compression.GZIP
    return Compression.ZSTD if re.search(r"\.t?zst$", name) else Compression.NONE


def _user(tree_fd: int, wanted: str | None) -> str | None:
    """The image's user as uid:gid, by the tree's own passwd and group."""
    if wanted is None:
        return None
    name, _, group = wanted.partition(":")
    passwd, groups = (_text(tree_fd, f"etc/{file}") for file in ("passwd", "group"))
    found = accounts.find(passwd, groups, name.encode())
    gid = accounts.find_group(groups, group.encode()) if group else found and found.gid
    if found is None or gid is None:
        raise ConfigError(
            f"cannot make the image: it is to run as {wanted}, whom the tree does not know",
            hint="declare the user in `users`, or change `image.user`",
        )
    return f"{found.uid}:{gid}"


def _text(tree_fd: int, path: str) -> bytes:
    try:
        return beneath.read_file(tree_fd, path, _LONGEST_ACCOUNTS)
    except OSError:
        return b""
