"""What is read back from archives: layers above each other, and what is damaged."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from virttools.errors import ManifestError
from virttools.image import differences, reading
from virttools.image.items import Item


def archive(*members: tuple[str, bytes | None, dict[str, object]]) -> bytes:
    """A tar archive of files (content) and folders (None)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content, more in members:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            for key, value in more.items():
                setattr(member, key, value)
            made.addfile(member, io.BytesIO(content or b""))
    return file.getvalue()


def layout(folder: Path, *layers: bytes) -> Path:
    """An OCI layout of one image."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    listed = [blob(one, "application/vnd.oci.image.layer.v1.tar") for one in layers]
    made = json.dumps({"schemaVersion": 2, "layers": listed}).encode()
    index = {"manifests": [blob(made, "application/vnd.oci.image.manifest.v1+json")]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return folder


def test_upper_layers_add_replace_and_delete(tmp_path: Path) -> None:
    """Whiteouts and opaque folders delete what lower layers have, and nothing of their own layer."""
    lower = archive(
        ("etc", None, {}), ("etc/a", b"1", {}), ("etc/b", b"1", {}),
        ("srv", None, {}), ("srv/old", b"1", {}),
    )  # fmt: skip
    upper = archive(
        ("etc", None, {}), ("etc/.wh.a", b"", {}), ("etc/b", b"2", {}),
        ("srv", None, {}), ("srv/new", b"3", {}), ("srv/.wh..wh..opq", b"", {}),
    )  # fmt: skip
    found = reading.items(str(layout(tmp_path / "x.oci", lower, gzip.compress(upper))))
    files = {item.path: item.sha256 for item in found if item.type == "file"}
    assert files == {
        "etc/b": hashlib.sha256(b"2").hexdigest(),
        "srv/new": hashlib.sha256(b"3").hexdigest(),
    }


def test_a_blob_that_is_not_what_its_digest_says_is_refused(tmp_path: Path) -> None:
    """One flipped byte in a layer is found before anything of it is believed."""
    content = archive(("a", b"1", {}))
    made = layout(tmp_path / "x.oci", content)
    blob = made / "blobs/sha256" / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(ManifestError, match="is damaged"):
        reading.items(str(made))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 5000,
        b"\x1f\x8b" + b"x" * 5000,
        gzip.compress(archive(("a", b"1", {})))[:-20],
        b"\x28\xb5\x2f\xfd" + b"x" * 5000,
        b"hsqs" + bytes(600),
        archive(("a", b"", {"type": tarfile.LNKTYPE, "linkname": "gone"})),
        archive(("oci-layout", b"{}", {}), ("index.json", b"[1,", {})),
        archive(("oci-layout", b"{}", {}), ("index.json", b'{"manifests":[]}', {})),
        archive(("manifest.json", b'{"a": 1}', {})),
        archive(("manifest.json", b'[{"Layers": ["gone"]}]', {})),
    ],
    ids=[
        "nothing", "letters", "no gzip", "half a gzip", "no zstd", "squashfs", "link to nothing", "no JSON",
        "empty index", "no docker manifest", "no layer",
    ],
)  # fmt: skip
def test_what_is_no_image_is_said(tmp_path: Path, content: bytes) -> None:
    """Garbage, half archives and images with holes end as bad data, never as a traceback."""
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(ManifestError):
        reading.items(str(file))


def test_names_that_climb_stay_below_the_top(tmp_path: Path) -> None:
    """No name of an archive is ever used outside of it, and ../x is x."""
    file = tmp_path / "x.tar"
    file.write_bytes(archive(("../../etc/x", b"1", {}), ("./b", b"2", {})))
    assert [item.path for item in reading.items(str(file))] == ["b", "etc/x"]


def item(path: str, **more: object) -> Item:
    return Item(path=path, **{"type": "file", "mode": 0o644, "uid": 0, "gid": 0, **more})  # type: ignore[arg-type]


def test_differences_say_what_and_times_only_on_request() -> None:
    """Mode, owner and content each by name; an equal item with another time is equal."""
    before = [item("a", mtime=1), item("b"), item("c", sha256="1", size=1)]
    after = [
        item("a", mtime=2),
        item("b", mode=0o600, uid=7),
        item("c", sha256="2", size=2),
        item("d"),
    ]
    told = [(one.path, one.told()) for one in differences.between(before, after, times=False)]
    assert told == [("b", "mode 0644 -> 0600, owner 0 -> 7"), ("c", "content"), ("d", "file")]
    assert differences.between(before, after)[0].parts == ("mtime",)
