"""Values: a bill as an SPDX document, version 2.3, in JSON (https://spdx.github.io/spdx-spec/v2.3/)."""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from virttools import __version__
from virttools.errors import HostLacks
from virttools.image.bill import Bill, File, Part
from virttools.image.documents import encode

if TYPE_CHECKING:
    from spdx_tools.spdx.model import CreationInfo, Document, Package
    from spdx_tools.spdx.model import File as SpdxFile

MEDIA_TYPE = "application/spdx+json"
_NAMESPACE = "https://virttools.invalid/spdx"
"""Names must be URIs that nobody else uses; RFC 2606 keeps .invalid free."""


def document(bill: Bill) -> bytes:
    """The document, equal for equal bills. Raises HostLacks without the package spdx-tools."""
    try:
        from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
    except ImportError as error:
        raise HostLacks(
            "cannot write an SPDX document: the Python package spdx-tools is not there",
            hint="pip install 'virttools[image]'",
        ) from error
    converter = DocumentConverter()  # type: ignore[no-untyped-call]  # theirs
    return encode(converter.convert(_document(bill)))


def _document(bill: Bill) -> "Document":
    from spdx_tools.spdx.model import Document, Relationship, RelationshipType

    packages: list[Package] = [_image(bill)]
    files: list[SpdxFile] = []
    relationships = [
        Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, "SPDXRef-Image"),
    ]

    def contains(whole: str, part: str) -> None:
        relationships.append(Relationship(whole, RelationshipType.CONTAINS, part))

    def hold(whole: str, found: "list[SpdxFile]") -> None:
        for file in found:
            files.append(file)
            contains(whole, file.spdx_id)

    for number, part in enumerate(bill.parts):
        package = _package(number, part, bill.distribution)
        packages.append(package)
        contains("SPDXRef-Image", package.spdx_id)
        hold(package.spdx_id, _files(part.files))
    hold("SPDXRef-Image", _files(bill.own))
    return Document(_info(bill), packages=packages, files=files, relationships=relationships)


def _info(bill: Bill) -> "CreationInfo":
    from spdx_tools.spdx.model import Actor, ActorType, CreationInfo

    return CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=bill.name,
        document_namespace=f"{_NAMESPACE}/{bill.name}-{bill.identity}",
        creators=[Actor(ActorType.TOOL, f"virttools-{__version__}")],
        created=datetime.fromtimestamp(bill.epoch, UTC).replace(tzinfo=None),
    )


def _image(bill: Bill) -> "Package":
    from spdx_tools.spdx.model import (
        Package,
        PackagePurpose,
        PackageVerificationCode,
        SpdxNoAssertion,
    )

    return Package(
        spdx_id="SPDXRef-Image",
        name=bill.name,
        version=bill.identity[:12],
        download_location=SpdxNoAssertion(),
        files_analyzed=True,
        verification_code=PackageVerificationCode(_verification(bill.own)),
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        primary_package_purpose=PackagePurpose.CONTAINER,
    )


def _package(number: int, part: Part, distribution: str) -> "Package":
    from spdx_tools.common.spdx_licensing import spdx_licensing
    from spdx_tools.spdx.model import (
        Actor,
        ActorType,
        ExternalPackageRef,
        ExternalPackageRefCategory,
        Package,
        PackageVerificationCode,
        SpdxNoAssertion,
    )

    details = part.details
    licence = details.licence if details else None
    words = details.licence_words if details else ""
    return Package(
        spdx_id=f"SPDXRef-Package-{number}-{_plain(part.package)}",
        name=part.package,
        version=part.version or None,
        download_location=SpdxNoAssertion(),
        supplier=Actor(ActorType.ORGANIZATION, details.maintainer)
        if details and details.maintainer
        else SpdxNoAssertion(),
        files_analyzed=True,
        verification_code=PackageVerificationCode(_verification(part.files)),
        source_info=f"built from {details.source}" if details and details.source else None,
        license_concluded=SpdxNoAssertion(),
        license_declared=spdx_licensing.parse(licence) if licence else SpdxNoAssertion(),
        license_comment=f"the package says: {words}" if words and not licence else None,
        copyright_text=SpdxNoAssertion(),
        comment=f"{'partial package' if part.is_partial else 'package'}: the image holds {part.extent}",
        external_references=[
            ExternalPackageRef(
                ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", part.purl(distribution)
            )
        ],
    )


def _files(files: Sequence[File]) -> "list[SpdxFile]":
    from spdx_tools.spdx.model import Checksum, ChecksumAlgorithm, SpdxNoAssertion
    from spdx_tools.spdx.model import File as SpdxFile

    return [
        SpdxFile(
            name=f".{file.name}",
            spdx_id=f"SPDXRef-File-{file.identity}",
            checksums=[
                Checksum(ChecksumAlgorithm.SHA1, file.sha1),
                Checksum(ChecksumAlgorithm.SHA256, file.sha256),
            ],
            license_concluded=SpdxNoAssertion(),
            copyright_text=SpdxNoAssertion(),
        )
        for file in files
    ]


def _verification(files: Sequence[File]) -> str:
    """Clause 7.9: of the digests of the files, sorted."""
    return hashlib.sha1("".join(sorted(file.sha1 for file in files)).encode()).hexdigest()  # noqa: S324  the specification's


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)
