"""Bills of materials judged by the validators of the libraries that define them."""

from __future__ import annotations

import importlib
import json
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def spdx_packages(text: str | bytes) -> dict[str, str]:
    """Names and versions in a valid SPDX document."""
    parser: Any = importlib.import_module(
        "spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser"
    )
    validator: Any = importlib.import_module("spdx_tools.spdx.validation.document_validator")
    document = parser.JsonLikeDictParser().parse(json.loads(text))
    assert validator.validate_full_spdx_document(document) == []
    return {package.name: package.version or "" for package in document.packages}


def cyclonedx_purls(text: str) -> list[str]:
    """Package URLs in a valid CycloneDX document."""
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    return [item["purl"] for item in json.loads(text)["components"]]
