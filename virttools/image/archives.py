"""Doer: images as one file: of a layout, as `docker save` writes them, or of the plain tree."""

import os
from collections.abc import Sequence
from typing import IO

from virttools.errors import ApplyError, HostLacks
from virttools.host import program
from virttools.image import documents, walk
from virttools.image.assemble import Assembled
from virttools.image.documents import Compression, Packed
from virttools.image.items import Item
from virttools.image.layout import Layout
from virttools.image.pack import Hashing, Packer, Sink
from virttools.image.stream import Archive

_SQUASHFS = "sqfstar"


def tar(
    sink: Sink,
    tree_fd: int,
    items: Sequence[Item],
    compression: Compression,
    advance: walk.Advance = lambda _: None,
) -> str:
    """The tree as a tar archive; the digest (hex of SHA-256) of what was written."""
    hashing = Hashing(sink)
    with Packer(hashing, compression) as packer:
        archive = Archive(packer)
        archive.tree(tree_fd, items, advance)
        archive.end()
    return hashing.sha256


def oci(sink: Sink, folder: str, epoch: int) -> str:
    """A layout as one file, as skopeo's oci-archive reads it; its digest."""
    hashing = Hashing(sink)
    archive = Archive(hashing)
    for path, is_folder in _below(folder):
        if is_folder:
            archive.folder(path, epoch)
            continue
        with open(os.path.join(folder, path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            archive.copy(path, file.fileno(), size, epoch)
    archive.end()
    return hashing.sha256


def docker(sink: Sink, layout: Layout, image: Assembled, names: Sequence[str], epoch: int) -> str:
    """An image as `docker load` takes it; layers are plain tar. Its digest."""
    hashing = Hashing(sink)
    archive = Archive(hashing)
    config = documents.blob(documents.CONFIG, image.config).digest.removeprefix("sha256:")
    archive.file(f"{config}.json", image.config, epoch)
    files = {_file(layer): layer for layer in image.layers}
    for name, layer in files.items():
        fd = layout.open(layer.digest)
        try:
            archive.copy(name, fd, layer.size, epoch)
        finally:
            os.close(fd)
    listed = [_file(layer) for layer in image.layers]
    archive.file("manifest.json", documents.docker_manifest(f"{config}.json", listed, names), epoch)
    archive.end()
    return hashing.sha256


def _file(layer: Packed) -> str:
    return f"{layer.diff_id.removeprefix('sha256:')}.tar"


def squashfs(target: str, tree: IO[bytes], top: Item, epoch: int) -> None:
    """A file system image of a tar archive, by sqfstar(1), which is of squashfs-tools 4.5 or later.

    top: the item of the tree's own folder, which sqfstar does not take from the archive.

    Raises HostLacks without it, ApplyError where it fails.
    """
    options = ["-no-progress", "-quiet", "-comp", "xz", "-root-mode", f"{top.mode:o}"]
    options += ["-root-uid", str(top.uid), "-root-gid", str(top.gid)]
    # -root-time does nothing in 4.5; the variable is for that folder's time as for all others.
    env = {"SOURCE_DATE_EPOCH": str(epoch)}
    try:
        done = program.call([_SQUASHFS, *options, target], env=env, stdin_fd=tree.fileno())
    except HostLacks as error:
        raise HostLacks(
            f"cannot make a squashfs image: {_SQUASHFS} is not there",
            hint="apt-get install squashfs-tools",
        ) from error
    if done.status != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise ApplyError(f"cannot make a squashfs image: {_SQUASHFS}: {said[-1]}")


def _below(folder: str) -> list[tuple[str, bool]]:
    """Every path of a folder of ours, sorted, and whether it is a folder."""
    found = []
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.relpath(os.path.join(where, name), folder)
            found.append((path, name in folders))
    return sorted(found)
