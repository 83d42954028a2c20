"""Values: a bill as a CycloneDX document, version 1.6, in JSON (https://cyclonedx.org/docs/1.6/json/)."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from virttools import __version__
from virttools.errors import HostLacks
from virttools.image.bill import Bill, File, Part
from virttools.image.documents import encode

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

MEDIA_TYPE = "application/vnd.cyclonedx+json"


def document(bill: Bill) -> bytes:
    """The document, equal for equal bills. Raises HostLacks without the package cyclonedx-python-lib."""
    try:
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise HostLacks(
            "cannot write a CycloneDX document: the Python package cyclonedx-python-lib is not there",
            hint="pip install 'virttools[image]'",
        ) from error
    return encode(json.loads(JsonV1Dot6(_bom(bill)).output_as_string()))


def _bom(bill: Bill) -> "Bom":
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.dependency import Dependency
    from cyclonedx.model.tool import ToolRepository

    image = Component(
        type=ComponentType.CONTAINER,
        name=bill.name,
        version=bill.identity[:12],
        bom_ref="image",
    )
    tool = Component(type=ComponentType.APPLICATION, name="virttools", version=__version__)
    packages = [_package(part, bill.distribution) for part in bill.parts]
    metadata = BomMetaData(
        component=image,
        timestamp=datetime.fromtimestamp(bill.epoch, UTC),
        tools=ToolRepository(components=[tool]),
    )
    # Random by default: equal bills have one number.
    number = uuid.uuid5(uuid.NAMESPACE_OID, bill.identity)
    bom = Bom(components=[*packages, *_files(bill.own)], metadata=metadata, serial_number=number)
    bom.dependencies.add(
        Dependency(image.bom_ref, [Dependency(package.bom_ref) for package in packages])
    )
    return bom


def _package(part: Part, distribution: str) -> "Component":
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.model.license import LicenseExpression
    from packageurl import PackageURL

    details = part.details
    purl = part.purl(distribution)
    properties = [
        Property(name="virttools:package:partial", value=str(part.is_partial).lower()),
        Property(name="virttools:package:files", value=part.extent),
    ]
    if details and details.licence_words and not details.licence:
        properties.append(Property(name="virttools:package:licences", value=details.licence_words))
    return Component(
        type=ComponentType.LIBRARY,
        name=part.package,
        version=part.version,
        bom_ref=purl,
        purl=PackageURL.from_string(purl),
        supplier=OrganizationalEntity(name=details.maintainer)
        if details and details.maintainer
        else None,
        licenses=[LicenseExpression(details.licence)] if details and details.licence else [],
        properties=properties,
        components=_files(part.files),
    )


def _files(files: Sequence[File]) -> "list[Component]":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(
            type=ComponentType.FILE,
            name=file.name,
            bom_ref=f"file:{file.path if file.name == file.path else file.identity}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
        )
        for file in files
    ]
