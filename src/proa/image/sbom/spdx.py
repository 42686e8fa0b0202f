"""A bill as SPDX 2.3 JSON, through spdx-tools."""

from __future__ import annotations

import io
import re
from datetime import datetime
from typing import Any

from proa import __version__
from proa.host import libraries
from proa.image.sbom.component import Component, Facts

_WHY = "an SPDX bill of materials"
_PACKAGE = "spdx-tools"
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")
_IMAGE = "SPDXRef-Image"
_DOCUMENT = "SPDXRef-DOCUMENT"


def write(facts: Facts) -> bytes:
    """The document; the same facts give the same bytes.  Raises Unsupported without the library."""
    model = libraries.need("spdx_tools.spdx.model", _WHY, _PACKAGE)
    writer = libraries.need("spdx_tools.spdx.writer.json.json_writer", _WHY, _PACKAGE)
    packages = [_image(model, facts)]
    packages += [
        _package(model, facts, number, component)
        for number, component in enumerate(facts.components, 1)
    ]
    kinds = model.RelationshipType
    relationships = [model.Relationship(_DOCUMENT, kinds.DESCRIBES, _IMAGE)]
    relationships += [
        model.Relationship(_IMAGE, kinds.CONTAINS, package.spdx_id) for package in packages[1:]
    ]
    document = model.Document(_creation(model, facts), packages, relationships=relationships)
    text = io.StringIO()
    writer.write_document_to_stream(document, text, validate=False)
    return text.getvalue().encode()


def _creation(model: Any, facts: Facts) -> Any:
    return model.CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id=_DOCUMENT,
        name=facts.name,
        document_namespace=f"urn:oci:{facts.digest}",
        creators=[model.Actor(model.ActorType.TOOL, f"proa-{__version__}")],
        created=datetime.fromisoformat(facts.created).replace(tzinfo=None),
        document_comment="; ".join(facts.missing) or None,
    )


def _image(model: Any, facts: Facts) -> Any:
    nothing = model.SpdxNoAssertion()
    return model.Package(
        spdx_id=_IMAGE, name=facts.name, download_location=nothing, version=facts.digest,
        files_analyzed=False, license_concluded=nothing, license_declared=nothing,
        copyright_text=nothing, primary_package_purpose=model.PackagePurpose.CONTAINER,
        checksums=[model.Checksum(model.ChecksumAlgorithm.SHA256, facts.digest[7:])],
    )  # fmt: skip


def _package(model: Any, facts: Facts, number: int, component: Component) -> Any:
    nothing = model.SpdxNoAssertion()
    declared = _license(component.license)
    supplier = nothing
    if component.supplier:
        supplier = model.Actor(model.ActorType.ORGANIZATION, component.supplier)
    reference = model.ExternalPackageRef(
        model.ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", component.purl(facts.system)
    )
    comment = f"declared by the package: {component.license}"
    return model.Package(
        spdx_id=f"SPDXRef-{number}-{_UNSAFE.sub('-', component.name)[:80]}",
        name=component.name, version=component.version or None, download_location=nothing,
        files_analyzed=False, supplier=supplier, license_concluded=nothing,
        license_declared=nothing if declared is None else declared, copyright_text=nothing,
        license_comment=comment if component.license and declared is None else None,
        source_info=f"built from {component.source}" if component.source else None,
        external_references=[reference],
    )  # fmt: skip


def _license(text: str) -> Any:
    """The parsed expression when it is one of known licences; else None."""
    if not text:
        return None
    licensing = libraries.need("spdx_tools.common.spdx_licensing", _WHY, _PACKAGE).spdx_licensing
    try:
        if licensing.validate(text, strict=True).errors:
            return None
        return licensing.parse(text)
    except Exception:  # the parser of that library raises of many kinds on foreign text
        return None
