"""What an image is made of, in the documents that others read: licences, partial packages, validity.

Their validators take four seconds to import: the tests that use them do.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from virttools.host import licences
from virttools.host.facts import Details
from virttools.image import bill as drawing
from virttools.image import cyclonedx, spdx
from virttools.image.bill import Bill
from virttools.image.items import Item
from virttools.tree.record import Entry

DETAILS = Details(
    version="1:2.0+x~1",
    architecture="amd64",
    maintainer="Some One <one@example.org>",
    source="tools-src",
    files=9,
    licence="GPL-2.0-or-later OR MIT",
    licence_words="GPL-2+ or Expat",
    kind="deb",
)


def file(path: str, digest: str) -> Item:
    return Item(path=path, type="file", mode=0o755, uid=0, gid=0, size=3, sha256=digest * 64)


def entry(path: str, digest: str, package: str | None) -> Entry:
    return Entry(
        path=f"/{path}", type="file", mode=0o755, uid=0, gid=0, size=3, sha256=digest * 64,
        package=package, version="1:2.0+x~1" if package else None, rule="binaries", origin="a.toml:1",
    )  # fmt: skip


def bill(*, details: Details | None = DETAILS) -> Bill:
    """Two files of a package of nine, one that was changed, two of ours with odd names."""
    found = [
        file("bin/a", "a"),
        file("bin/b", "b"),
        file("bin/c", "c"),
        file("etc/caf\u00e9 1", "d"),
        file("etc/\udcff", "e"),
    ]
    entries = [
        entry("bin/a", "a", "tools"),
        entry("bin/b", "b", "tools"),
        entry("bin/c", "0", "tools"),
    ]
    return drawing.draw(
        "www.example.org",
        found,
        entries,
        {item.path: "1" * 40 for item in found},
        {} if details is None else {"tools": details},
        distribution="debian",
        epoch=1_700_000_000,
    )


def test_what_was_changed_is_not_the_packages_any_more() -> None:
    """A file counts for its package while it is what that package shipped."""
    found = bill()
    assert [[one.path for one in part.files] for part in found.parts] == [["/bin/a", "/bin/b"]]
    assert [one.path for one in found.own] == ["/bin/c", "/etc/caf\u00e9 1", "/etc/\udcff"]
    assert found.parts[0].extent == "2 of its 9 files"
    assert found.parts[0].is_partial


def test_the_host_is_not_asked_about_another_version() -> None:
    """After an upgrade of the host, its licences and numbers of files would be the wrong ones."""
    newer = Details("2.1", "amd64", "x", "x", 9, "MIT", "MIT", "deb")
    (part,) = bill(details=newer).parts
    assert (part.details, part.is_partial, part.extent) == (None, False, "2 files of it")
    assert part.purl("debian") == "pkg:deb/debian/tools@1:2.0%2Bx~1"


@pytest.mark.parametrize("details", [DETAILS, None], ids=["known", "unknown"])
def test_spdx_is_valid_by_the_validator_of_its_makers(
    details: Details | None, tmp_path: Path
) -> None:
    """And says packages, files, digests, licences and what is partial."""
    from spdx_tools.spdx.parser.json import json_parser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    made = spdx.document(bill(details=details))
    path = tmp_path / "a.spdx.json"
    path.write_bytes(made)
    parsed = json_parser.parse_from_file(str(path))
    assert validate_full_spdx_document(parsed) == []
    (package,) = [one for one in parsed.packages if one.name == "tools"]
    if details is not None:
        assert str(package.license_declared) == "GPL-2.0-or-later OR MIT"
        assert package.comment == "partial package: the image holds 2 of its 9 files"
        (reference,) = package.external_references
        assert reference.locator == "pkg:deb/debian/tools@1:2.0%2Bx~1?arch=amd64"
    assert sorted(one.name for one in parsed.files) == [
        "./bin/a", "./bin/b", "./bin/c", "./etc/\\xff", "./etc/caf\u00e9 1",
    ]  # fmt: skip
    assert parsed.creation_info.created.isoformat() == "2023-11-14T22:13:20"


@pytest.mark.parametrize("details", [DETAILS, None], ids=["known", "unknown"])
def test_cyclonedx_is_valid_by_the_strict_schema(details: Details | None) -> None:
    """And says the same."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    made = cyclonedx.document(bill(details=details))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode()) is None
    found = json.loads(made)
    (package,) = [one for one in found["components"] if one["name"] == "tools"]
    said = {one["name"]: one["value"] for one in package["properties"]}
    assert said["virttools:package:partial"] == str(details is not None).lower()
    assert [one["name"] for one in package["components"]] == ["/bin/a", "/bin/b"]
    if details is not None:
        assert package["licenses"] == [{"expression": "GPL-2.0-or-later OR MIT"}]


@pytest.mark.parametrize("make", [spdx.document, cyclonedx.document])
def test_equal_images_have_equal_documents(make: Callable[[Bill], bytes]) -> None:
    """No time of day, no random number."""
    assert make(bill()) == make(bill())
    assert make(bill()) != make(bill(details=None))


COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2001 A
License: {}

Files: debian/*
License: Expat

License: never-counted
 The text of a licence.
"""


@pytest.mark.parametrize(
    ("said", "expression"),
    [
        ("GPL-2+", "GPL-2.0-or-later AND MIT"),
        ("LGPL-2.1", "LGPL-2.1-only AND MIT"),
        ("GPL-1+ or Artistic", "(Artistic-1.0 OR GPL-1.0-or-later) AND MIT"),
        ("Expat", "MIT"),
        ("BSD-3-clause, Zlib", None),
        ("GPL-2 and Expat or ISC", None),
        ("something-else", None),
    ],
)
def test_licences_are_told_where_the_words_are_known(said: str, expression: str | None) -> None:
    """A word that is not known makes no expression: nothing is claimed that was not said."""
    found = licences.of_debian(COPYRIGHT.format(said))
    assert found.expression == expression
    assert found.words == ("Expat" if said == "Expat" else f"{said}; Expat")


def test_free_text_tells_no_licence() -> None:
    """Copyright files of old are prose."""
    assert licences.of_debian("This is the GPL.\nLicense: MIT\n") == licences.Licences(None, "")
