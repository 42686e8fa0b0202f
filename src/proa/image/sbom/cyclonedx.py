"""A bill as CycloneDX 1.5 JSON, through cyclonedx-python-lib."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from proa import __version__
from proa.host import libraries
from proa.image.sbom.component import Component, Facts

_WHY = "a CycloneDX bill of materials"
_PACKAGE = "cyclonedx-python-lib"


def write(facts: Facts) -> bytes:
    """The document; the same facts give the same bytes.  Raises Unsupported without the library."""
    models = libraries.need("cyclonedx.model.component", _WHY, _PACKAGE)
    boms = libraries.need("cyclonedx.model.bom", _WHY, _PACKAGE)
    output = libraries.need("cyclonedx.output.json", _WHY, _PACKAGE)
    general = libraries.need("cyclonedx.model", _WHY, _PACKAGE)
    root = models.Component(
        name=facts.name, version=facts.digest, bom_ref="image",
        type=models.ComponentType.CONTAINER,
        properties=[general.Property(name="proa:missing", value=text) for text in facts.missing],
    )  # fmt: skip
    tool = models.Component(
        name="proa", version=__version__, type=models.ComponentType.APPLICATION, bom_ref="proa"
    )
    tools = libraries.need("cyclonedx.model.tool", _WHY, _PACKAGE)
    metadata = boms.BomMetaData(
        component=root, timestamp=datetime.fromisoformat(facts.created),
        tools=tools.ToolRepository(components=[tool]),
    )  # fmt: skip
    bom = boms.Bom(
        metadata=metadata,
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:oci:{facts.digest}"),
        components=[_component(models, facts.system, item) for item in facts.components],
    )
    bom.register_dependency(root, bom.components)
    return str(output.JsonV1Dot5(bom).output_as_string(indent=2)).encode()


def _component(models: Any, system: Mapping[str, str], item: Component) -> Any:
    contacts = libraries.need("cyclonedx.model.contact", _WHY, _PACKAGE)
    licenses = libraries.need("cyclonedx.model.license", _WHY, _PACKAGE)
    urls = libraries.need("packageurl", _WHY, "packageurl-python")
    purl = item.purl(system)
    return models.Component(
        name=item.name, version=item.version or None, type=models.ComponentType.LIBRARY,
        purl=urls.PackageURL.from_string(purl), bom_ref=purl,
        supplier=contacts.OrganizationalEntity(name=item.supplier) if item.supplier else None,
        licenses=[licenses.DisjunctiveLicense(name=item.license)] if item.license else None,
    )  # fmt: skip
