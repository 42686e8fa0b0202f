"""Bills of an image: made, attached to it as OCI referrers, found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proa.errors import Corrupt, Invalid
from proa.image import manifest
from proa.image.assembly import Assembly
from proa.image.catalog import Image
from proa.image.sbom import cyclonedx, spdx
from proa.image.sbom.component import Facts
from proa.image.sbom.facts import gather
from proa.image.store import Images

MAXIMUM_BYTES = 256 << 20


@dataclass(frozen=True)
class Format:
    """A way to write a bill; `media_type` is its content's and the artifact's type."""

    name: str
    media_type: str
    write: Callable[[Facts], bytes]


FORMATS = {
    item.name: item
    for item in (
        Format("spdx", "application/spdx+json", spdx.write),
        Format("cyclonedx", "application/vnd.cyclonedx+json", cyclonedx.write),
    )
}


@dataclass(frozen=True)
class Bill:
    """A bill's text; `attached` says whether it was there already."""

    format: Format
    content: bytes
    attached: bool


def format_of(name: str) -> Format:
    """The format of this name.  Raises Invalid."""
    if name not in FORMATS:
        raise Invalid(f"unknown format '{name}'", hint=f"one of: {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def of(images: Images, image: Image, name: str, *, fresh: bool = False) -> Bill:
    """The bill attached to an image, or (also when `fresh`) one made now of its layers."""
    wanted = format_of(name)
    found = None if fresh else _attached(images, image, wanted)
    if found is not None:
        return Bill(wanted, found, True)
    return Bill(wanted, wanted.write(facts(images, image)), False)


def facts(images: Images, image: Image) -> Facts:
    """What is in an image, read from its layers now."""
    layers = images.layers(image)
    with images.workspace() as workspace:
        return gather(image, layers, workspace)


def attach(images: Images, image: Image, assembly: Assembly) -> tuple[str, ...]:
    """Make a bill in every format and attach it, unless one is; digests of the new artifacts."""
    missing = [item for item in FORMATS.values() if _attached(images, image, item) is None]
    if not missing:
        return ()
    known = facts(images, image)
    return tuple(
        assembly.attach(image, item.media_type, item.write(known), item.media_type)
        for item in missing
    )


def _attached(images: Images, image: Image, wanted: Format) -> bytes | None:
    for described in images.referrers(image, wanted.media_type):
        content = _content(images, described.digest, wanted)
        if content is not None:
            return content
    return None


def _content(images: Images, digest: str, wanted: Format) -> bytes | None:
    """The one layer of an artifact, when it is of this format."""
    document = manifest.decode_object(images.document(digest), "an artifact")
    layers: Any = document.get("layers")
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and layer.get("mediaType") == wanted.media_type:
            return _read(images, str(layer.get("digest")))
    return None


def _read(images: Images, digest: str) -> bytes:
    path = images.blob(digest)
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise Corrupt(f"the bill '{digest}' is not in the store") from error
    if len(data) > MAXIMUM_BYTES or manifest.digest_of(data) != digest:
        raise Corrupt(f"the bill '{digest}' is damaged")
    return data


def rows(content: bytes, name: str) -> list[dict[str, str]]:
    """Packages of a bill as people read them: kind, name, version, licence.

    Raises Corrupt when it is not what it says it is.
    """
    try:
        document = json.loads(content)
        found = _of_spdx(document) if name == "spdx" else _of_cyclonedx(document)
        return [{key: str(value or "") for key, value in row.items()} for row in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(f"the bill is not {name}") from error


def _of_spdx(document: Any) -> list[dict[str, Any]]:
    found = []
    for package in document["packages"]:
        purls = [
            reference["referenceLocator"]
            for reference in package.get("externalRefs", ())
            if reference.get("referenceType") == "purl"
        ]
        if purls:
            said = package.get("licenseDeclared")
            comment = package.get("licenseComments") or ""
            license = comment.rpartition(": ")[2] if said in (None, "NOASSERTION") else said
            found.append(
                {"Type": _kind(purls[0]), "Name": package["name"],
                 "Version": package.get("versionInfo"), "License": license}
            )  # fmt: skip
    return found


def _of_cyclonedx(document: Any) -> list[dict[str, Any]]:
    found = []
    for item in document.get("components", ()):
        licenses = [
            entry.get("expression") or entry["license"].get("id") or entry["license"].get("name")
            for entry in item.get("licenses", ())
        ]
        found.append(
            {"Type": _kind(item.get("purl", "")), "Name": item["name"],
             "Version": item.get("version"), "License": ", ".join(map(str, licenses))}
        )  # fmt: skip
    return found


def _kind(purl: str) -> str:
    return purl.removeprefix("pkg:").partition("/")[0]
