"""Reader: what an image holds, from a folder, a tar archive, an OCI layout or archive, a docker archive.

Nothing is unpacked; what is read may be anybody's.
"""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any

from virttools.errors import ApplyError, HostLacks, ManifestError
from virttools.image import documents, walk
from virttools.image.documents import Descriptor
from virttools.image.items import Item, ordered

_DOCUMENT = 16 << 20
_BLOCK = 1 << 20
_GZIP, _ZSTD, _SQUASHFS = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"hsqs"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
}

Opening = Callable[[str], IO[bytes]]
"""Opens a file of an image by its name in there. Raises KeyError, OSError."""


def items(path: str, tag: str | None = None) -> tuple[Item, ...]:
    """Everything that an image holds. tag: of a layout or an archive with several.

    Raises ManifestError for what is damaged or no image, HostLacks, ApplyError.
    """
    try:
        return _items(path, tag)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, UnicodeError) as error:
        # Of what is no archive tarfile tells every way it tried, a line each.
        cause = str(error).partition("\n")[0].rstrip(":")
        raise ManifestError(f"cannot read {path}: it is damaged, or no image ({cause})") from error
    except KeyError as error:
        raise ManifestError(f"cannot read {path}: it lacks {error.args[0]}") from error
    except OSError as error:
        raise ApplyError(f"cannot read {path}: {error.strerror or error}") from error


def _items(path: str, tag: str | None) -> tuple[Item, ...]:
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "oci-layout")):
            return _of_layout(path, tag, lambda name: open(os.path.join(path, name), "rb"))
        return _of_folder(path)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ManifestError(f"cannot read {path}: it is neither a file nor a folder")
        if file.read(4) == _SQUASHFS:
            raise ManifestError(
                f"cannot look into {path}: it is a squashfs",
                hint=f"unsquashfs -d FOLDER {path}, and name the folder",
            )
        file.seek(0)
        return _of_file(path, file, tag)


def _of_folder(path: str) -> tuple[Item, ...]:
    folder_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return walk.items(folder_fd)
    finally:
        os.close(folder_fd)


def _of_file(path: str, file: IO[bytes], tag: str | None) -> tuple[Item, ...]:
    with _unpacked(file) as stream:
        first = stream.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if len(first) < tarfile.BLOCKSIZE:
        raise ManifestError(f"cannot read {path}: it is no image")
    if not _is_plain(file):  # a compressed archive of an image is nobody's format
        return _of_layers([file])
    with tarfile.open(fileobj=file) as archive:
        names = {member.name for member in archive}
        if not names & {"oci-layout", "manifest.json"}:
            file.seek(0)
            return _of_layers([file])

        def opened(name: str) -> IO[bytes]:
            found = archive.extractfile(name)
            if found is None:
                raise KeyError(name)
            return found

        if "oci-layout" in names:
            return _of_layout(path, tag, opened)
        return _of_docker(path, tag, opened)


def _is_plain(file: IO[bytes]) -> bool:
    begin = file.read(4)
    file.seek(0)
    return not begin.startswith((_GZIP, _ZSTD))


def _of_layout(path: str, tag: str | None, opening: Opening) -> tuple[Item, ...]:
    listed = documents.descriptors(_document(opening, "index.json"), "index.json")
    chosen = _chosen(path, tag, [one for one in listed if one.artifact_type is None])
    content = _blob(opening, chosen)
    if chosen.media_type == documents.INDEX:
        chosen = _of_here(documents.descriptors(content, chosen.digest))
        content = _blob(opening, chosen)
    layers = documents.document(content, chosen.digest).get("layers", ())
    found = [documents.descriptor(layer, chosen.digest) for layer in layers]
    return _of_layers(_checked(opening, layer) for layer in found)


def _chosen(path: str, tag: str | None, listed: list[Descriptor]) -> Descriptor:
    tags = {dict(one.annotations).get(documents.TAG): one for one in reversed(listed)}
    if tag is not None and tag not in tags:
        known = ", ".join(sorted(name for name in tags if name))
        raise ManifestError(f"cannot read {path}: it has no tag {tag}", hint=f"there are {known}")
    if tag is not None or len({one.digest for one in listed}) == 1:
        return tags[tag] if tag is not None else listed[0]
    if not listed:
        raise ManifestError(f"cannot read {path}: no image is in it")
    return tags.get("latest") or _of_here(listed)


def _of_here(listed: Iterable[Descriptor]) -> Descriptor:
    """The image for this architecture, or the first there is."""
    found = [one for one in listed if one.artifact_type is None]
    here = documents.architecture(os.uname().machine)
    for one in found:
        if one.platform == here:
            return one
    if not found:
        raise ManifestError("cannot read the image: its index lists none")
    return found[0]


def _of_docker(path: str, tag: str | None, opening: Opening) -> tuple[Item, ...]:
    """Docker's own format (moby, image/tarexport): manifest.json lists the layers' names."""
    found: Any = json.loads(_document(opening, "manifest.json"))
    try:
        for one in found:
            names = [name.rpartition(":")[2] for name in one.get("RepoTags") or ()]
            if tag is None or tag in names:
                return _of_layers(opening(layer) for layer in one["Layers"])
    except (TypeError, AttributeError) as error:
        raise ManifestError(f"cannot read {path}: its manifest.json is not docker's") from error
    raise ManifestError(f"cannot read {path}: it has no tag {tag}")


def _document(opening: Opening, name: str) -> bytes:
    with opening(name) as file:
        content = file.read(_DOCUMENT + 1)
    if len(content) > _DOCUMENT:
        raise ManifestError(f"cannot read the image: {name} is too long for a document")
    return content


def _blob(opening: Opening, wanted: Descriptor) -> bytes:
    content = _document(opening, _name(wanted))
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != wanted.digest:
        raise _damaged(wanted)
    return content


def _name(wanted: Descriptor) -> str:
    kind, _, digest = wanted.digest.partition(":")
    if kind != "sha256" or len(digest) != 64 or not digest.isalnum():
        raise ManifestError(f"cannot read the image: {wanted.digest} is no digest that we know")
    return f"blobs/sha256/{digest}"


def _checked(opening: Opening, wanted: Descriptor) -> IO[bytes]:
    """A layer, once its content was seen to be what its digest says."""
    file = opening(_name(wanted))
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    if f"sha256:{digest.hexdigest()}" != wanted.digest:
        file.close()
        raise _damaged(wanted)
    file.seek(0)
    return file


def _damaged(wanted: Descriptor) -> ManifestError:
    return ManifestError(f"cannot read the image: the blob {wanted.digest} is damaged")


def _of_layers(layers: Iterable[IO[bytes]]) -> tuple[Item, ...]:
    """What layers hold, each above the one before it (layer.md of the OCI image specification)."""
    found: dict[str, Item] = {}
    for layer in layers:
        with layer:
            _apply(found, _members(layer))
    return ordered(_linked(found))


def _apply(found: dict[str, Item], members: Iterable[Item]) -> None:
    mine: set[str] = set()
    for item in members:
        folder, _, name = item.path.rpartition("/")
        if name == _OPAQUE:
            _drop(found, folder, mine, is_whole=False)
        elif name.startswith(_WHITEOUT):
            _drop(found, f"{folder}/{name[len(_WHITEOUT) :]}".lstrip("/"), mine, is_whole=True)
        else:
            if item.type != "directory" and item.path in found:
                _drop(found, item.path, mine, is_whole=True)
            found[item.path] = item
            mine.add(item.path)


def _drop(found: dict[str, Item], path: str, mine: set[str], *, is_whole: bool) -> None:
    """Forget what lower layers have below a path, and (is_whole) at it."""
    below = f"{path}/" if path else ""
    for name in [name for name in found if name.startswith(below) and name not in mine]:
        if name:
            del found[name]
    if is_whole and path not in mine:
        found.pop(path, None)


def _members(layer: IO[bytes]) -> Iterator[Item]:
    with (
        _unpacked(layer) as stream,
        tarfile.open(
            fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape"
        ) as archive,
    ):
        for member in archive:
            yield _item(archive, member)


def _item(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
    path = os.path.normpath(f"/{member.name}")[1:].lstrip("/")
    if member.islnk():
        link = os.path.normpath(f"/{member.linkname}")[1:].lstrip("/")
        return Item(path=path, type="file", mode=0, uid=0, gid=0, link=link)
    kind = _KINDS.get(member.type)
    if kind is None:
        raise ManifestError(f"cannot read the image: {path!r} is of a kind that no tree has")
    content = archive.extractfile(member) if kind == "file" else None
    letter = "b" if member.isblk() else "c"
    return Item(
        path=path,
        type=kind,
        mode=stat.S_IMODE(member.mode) if kind != "symlink" else 0o777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        size=member.size if kind == "file" else 0,
        sha256=hashlib.file_digest(content, "sha256").hexdigest() if content else None,  # type: ignore[arg-type]
        target=member.linkname if kind == "symlink" else None,
        device=(letter, member.devmajor, member.devminor) if kind == "device" else None,
        xattrs=tuple(sorted(_xattrs(member.pax_headers))),
    )


def _xattrs(headers: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for key, value in headers.items():
        if key.startswith(_XATTR):
            name = key[len(_XATTR) :].replace("%3D", "=").replace("%25", "%")
            yield name, value.encode("utf-8", "surrogateescape")


def _linked(found: dict[str, Item]) -> Iterator[Item]:
    """Second names with what their first one holds, as a walk through a tree tells it."""
    names = {item.link for item in found.values() if item.link is not None}
    for path, item in found.items():
        if item.link is not None:
            first = found.get(item.link)
            if first is None or first.link is not None:
                raise ManifestError(f"cannot read the image: {path!r} is a link to nothing")
            yield replace(first, path=path, link=item.link)
        else:
            yield replace(item, link=path) if path in names else item


@contextmanager
def _unpacked(file: IO[bytes]) -> Iterator[IO[bytes]]:
    begin = file.read(4)
    file.seek(0)
    if begin.startswith(_GZIP):
        yield gzip.GzipFile(fileobj=file)  # type: ignore[misc]
    elif begin == _ZSTD:
        with _zstd(file) as stream:
            yield stream
    else:
        yield file


@contextmanager
def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise HostLacks(
            "cannot read what zstd has packed: the Python library zstandard is missing",
            hint="pip install 'virttools[image]'",
        ) from error
    unpacker = zstandard.ZstdDecompressor()
    try:
        yield io.BufferedReader(
            unpacker.stream_reader(file, closefd=False, read_across_frames=True), _BLOCK
        )
    except zstandard.ZstdError as error:
        raise tarfile.ReadError(str(error)) from error
