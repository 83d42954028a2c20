"""Tests of image/layout.py, assemble.py and output.py: layouts that hold many images, written whole or not at all."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from virttools.errors import ApplyError, Busy, DomainExists, ManifestError, UsageError
from virttools.image import assemble, documents, layout, output, walk
from virttools.image.assemble import Assembled
from virttools.image.documents import About, Attachment, Compression
from virttools.image.items import Layer
from virttools.manifest.model import Image

AMD64 = ("amd64", "")
ARM64 = ("arm64", "v8")


@contextmanager
def opened(path: Path) -> Iterator[layout.Layout]:
    """A layout that is there, or a new one."""
    if path.exists():
        with layout.existing(str(path)) as found:
            yield found
    else:
        with output.folder(str(path)) as fd, layout.Layout(fd) as found:
            yield found


def built(
    path: Path,
    tree: Path,
    *tags: str,
    architecture: tuple[str, str] = AMD64,
    attachments: tuple[Attachment, ...] = (),
) -> Assembled:
    tree_fd = os.open(tree, os.O_RDONLY)
    try:
        items = walk.items(tree_fd)
        about = About(domain="d.com", image=Image(), epoch=0, architecture=architecture, user=None)
        with opened(path) as found:
            return assemble.assemble(
                found,
                tree_fd,
                [Layer("(here)", items)],
                about,
                compression=Compression.GZIP,
                tags=tags or ("latest",),
                attachments=attachments,
            )
    finally:
        os.close(tree_fd)


def listed(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((path / "index.json").read_bytes())["manifests"]
    return found


def blobs(path: Path) -> set[str]:
    return set(os.listdir(path / "blobs/sha256"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    found = tmp_path / "tree"
    found.mkdir()
    (found / "file").write_text("one")
    return found


def test_the_same_tree_again_changes_nothing(tmp_path: Path, tree: Path) -> None:
    """No layer is packed anew, and what had the tag is told."""
    out = tmp_path / "out"
    first = built(out, tree)
    before = blobs(out)
    again = built(out, tree)
    assert (first.reused, again.reused, again.before) == (0, 1, first.manifest.digest)
    assert blobs(out) == before


def test_several_tags_are_one_image_and_a_tag_moves(tmp_path: Path, tree: Path) -> None:
    """What no tag leads to any more goes, and what another still holds stays."""
    out = tmp_path / "out"
    first = built(out, tree, "1.0", "latest")
    (tree / "file").write_text("two")
    second = built(out, tree, "latest")
    assert {one["annotations"][documents.TAG]: one["digest"] for one in listed(out)} == {
        "1.0": first.manifest.digest,
        "latest": second.manifest.digest,
    }
    built(out, tree, "1.0")
    assert first.manifest.digest[7:] not in blobs(out)


def test_architectures_share_a_tag(tmp_path: Path, tree: Path) -> None:
    """One index for each tag, with a manifest for each; making one anew keeps the other."""
    out = tmp_path / "out"
    built(out, tree)
    arm = built(out, tree, architecture=ARM64)
    (tree / "file").write_text("two")
    amd = built(out, tree)
    (entry,) = listed(out)
    inner = json.loads((out / "blobs/sha256" / entry["digest"][7:]).read_bytes())["manifests"]
    assert {one["platform"]["architecture"]: one["digest"] for one in inner} == {
        "amd64": amd.manifest.digest,
        "arm64": arm.manifest.digest,
    }


def test_what_hangs_on_an_image_goes_with_it(tmp_path: Path, tree: Path) -> None:
    """A referrer names the image as its subject; when the image goes, so does it."""
    out = tmp_path / "out"
    image = built(out, tree, attachments=(Attachment("application/spdx+json", b"{}"),))
    (hung,) = [one for one in listed(out) if "artifactType" in one]
    document = json.loads((out / "blobs/sha256" / hung["digest"][7:]).read_bytes())
    assert document["subject"]["digest"] == image.manifest.digest
    (tree / "file").write_text("two")
    built(out, tree)
    assert [one for one in listed(out) if "artifactType" in one] == []
    assert hung["digest"][7:] not in blobs(out)


def test_a_damaged_layer_is_packed_anew(tmp_path: Path, tree: Path) -> None:
    """A blob is read before it is used again: one flipped byte, and it does not count."""
    out = tmp_path / "out"
    layer = out / "blobs/sha256" / built(out, tree).layers[0].digest[7:]
    whole = layer.read_bytes()
    layer.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert built(out, tree).reused == 0
    assert layer.read_bytes() == whole


def test_every_blob_is_named_by_its_digest_and_reached(tmp_path: Path, tree: Path) -> None:
    """Nothing lies in a layout that its index does not lead to."""
    out = tmp_path / "out"
    built(out, tree, "a", "b", attachments=(Attachment("text/plain", b"x"),))
    with layout.existing(str(out)) as found:
        roots = found.index()
        assert {digest[7:] for digest in found.reachable(roots)} == blobs(out)
        assert all(found.has(one) for one in roots)


def test_two_builds_do_not_write_one_layout_at_once(tmp_path: Path, tree: Path) -> None:
    """The second is told to try again."""
    out = tmp_path / "out"
    built(out, tree)
    with layout.existing(str(out)), pytest.raises(Busy, match="another build writes it"):
        built(out, tree)


@pytest.mark.parametrize("text", [b"[]", b"{", b'{"manifests":[{"digest":"../../etc/passwd"}]}'])
def test_a_broken_index_is_told_and_left_alone(tmp_path: Path, tree: Path, text: bytes) -> None:
    """What is no layout is not written to; no digest leads out of it."""
    out = tmp_path / "out"
    built(out, tree)
    (out / "index.json").write_bytes(text)
    with pytest.raises(ManifestError, match=r"index\.json"):
        built(out, tree)
    assert (out / "index.json").read_bytes() == text


def test_a_folder_of_something_else_is_refused(tmp_path: Path, tree: Path) -> None:
    """Only an image layout is added to; a file in the way is never overwritten by one."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/precious").write_text("x")
    with pytest.raises(DomainExists, match="no OCI image layout"):
        built(tmp_path / "other", tree)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DomainExists, match="there already"), output.folder(str(tmp_path / "file")):
        raise AssertionError
    assert os.listdir(tmp_path / "other") == ["precious"]


@pytest.mark.parametrize("way", [output.file, output.folder, output.scratch])
def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path, way: Any) -> None:  # noqa: ANN401  three context managers
    """And nothing that another run still writes, nor what only looks like it."""
    out = str(tmp_path / "out")
    child = os.fork()
    if child == 0:
        with way(out):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = os.listdir(tmp_path)
    (tmp_path / ".out.precious.new").touch()
    with way(out):
        now = set(os.listdir(tmp_path))
        with output.scratch(out):
            assert now < set(os.listdir(tmp_path))
    assert left not in now
    assert ".out.precious.new" in os.listdir(tmp_path)


def test_half_written_blobs_go_with_the_next_run(tmp_path: Path, tree: Path) -> None:
    """A kill in the midst of a layer leaves a file that no index names; the next build removes it."""
    out = tmp_path / "out"
    built(out, tree)
    with layout.existing(str(out)) as found:
        child = os.fork()
        if child == 0:
            found.write(lambda _sink: os.kill(os.getpid(), signal.SIGKILL))
        os.waitpid(child, 0)
    (half,) = [name for name in blobs(out) if name.startswith(".")]
    built(out, tree)
    assert half not in blobs(out)


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """What was there is replaced by one rename at the end, or not at all."""
    target = tmp_path / "out"
    target.write_text("old")

    def write() -> None:
        with output.file(str(target)) as file:
            file.write(b"new")
            raise OSError(28, "No space left on device")

    with pytest.raises(ApplyError, match="No space"):
        write()
    assert (os.listdir(tmp_path), target.read_text()) == (["out"], "old")


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    """A fifo is not waited for, a link not followed, a folder not emptied."""
    target = tmp_path / "out"
    match kind:
        case "fifo":
            os.mkfifo(target)
        case "link":
            target.symlink_to(tmp_path / "precious")
        case _:
            target.mkdir()
    with pytest.raises(DomainExists), output.file(str(target)):
        raise AssertionError


@pytest.mark.parametrize("text", ["1.0", "latest", "_x-y.z", "A" * 128])
def test_a_good_tag_is_taken(text: str) -> None:
    """As the distribution specification has it."""
    assert documents.tag(text) == text


@pytest.mark.parametrize("text", ["", "-x", "a/b", "a:b", "A" * 129, "ä", "a b"])
def test_a_bad_tag_is_refused(text: str) -> None:
    """Registries would refuse it later, at a worse moment."""
    with pytest.raises(UsageError, match="cannot tag"):
        documents.tag(text)
