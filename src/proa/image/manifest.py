"""OCI and Docker manifests: read strictly, written canonically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proa.errors import Corrupt
from proa.image import reference

MAXIMUM_DOCUMENT = 4 << 20  # bytes of a manifest, index or configuration
MAXIMUM_LAYERS = 500  # overlayfs takes no more
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)


@dataclass(frozen=True)
class Descriptor:
    """A reference to a blob: its type, digest and size, and what is said about it."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    platform: dict[str, Any] = field(default_factory=dict)
    artifact_type: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        result: dict[str, Any] = {
            "mediaType": self.media_type, "digest": self.digest, "size": self.size,
        }  # fmt: skip
        if self.artifact_type:
            result["artifactType"] = self.artifact_type
        if self.platform:
            result["platform"] = self.platform
        if self.annotations:
            result["annotations"] = self.annotations
        return result


@dataclass(frozen=True)
class Manifest:
    """One image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def digest_of(data: bytes) -> str:
    """The digest of a small document."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(document: Any) -> bytes:
    """The one way Proa writes JSON that is hashed."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes, what: str) -> Any:
    """JSON from outside."""
    if len(data) > MAXIMUM_DOCUMENT:
        raise Corrupt(f"{what} of '{len(data)}' bytes is too large")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{what} is not valid json: {error}") from error


def decode_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object from outside."""
    document = decode(data, what)
    if not isinstance(document, dict):
        raise Corrupt(f"{what} is not a json object")
    return document


def strings(value: Any, what: str) -> dict[str, str]:
    """An object that maps strings to strings, or nothing."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Corrupt(f"{what} is not an object of strings")
    return value


def descriptor(value: Any) -> Descriptor:
    """A descriptor from outside."""
    if not isinstance(value, dict):
        raise Corrupt("a descriptor is not a json object")
    reference.hexadecimal(value.get("digest"))
    media_type, size = value.get("mediaType", ""), value.get("size")
    if not isinstance(media_type, str) or type(size) is not int or size < 0:
        raise Corrupt(f"the descriptor of '{value['digest']}' is malformed")
    platform = value.get("platform") or {}
    if not isinstance(platform, dict):
        raise Corrupt(f"the platform of '{value['digest']}' is malformed")
    annotations = strings(value.get("annotations"), "annotations")
    artifact_type = value.get("artifactType") or ""
    if not isinstance(artifact_type, str):
        raise Corrupt(f"the artifact type of '{value['digest']}' is malformed")
    return Descriptor(media_type, value["digest"], size, annotations, platform, artifact_type)


def descriptors(value: Any, what: str) -> tuple[Descriptor, ...]:
    """A list of descriptors from outside."""
    if not isinstance(value, list):
        raise Corrupt(f"{what} is not a list")
    return tuple(descriptor(item) for item in value)


def parse_manifest(data: bytes) -> Manifest:
    """A manifest; a document that is an index as well is refused (CVE-2021-41190)."""
    document = decode_object(data, "a manifest")
    if "manifests" in document or document.get("mediaType") in INDEX_TYPES:
        raise Corrupt("a manifest claims to be an index as well")
    if document.get("schemaVersion") != 2:
        raise Corrupt(f"unknown manifest version '{document.get('schemaVersion')}'")
    layers = descriptors(document.get("layers"), "the list of layers")
    if len(layers) > MAXIMUM_LAYERS:
        raise Corrupt(f"an image of '{len(layers)}' layers has too many")
    return Manifest(descriptor(document.get("config")), layers)


def parse_index(data: bytes) -> tuple[Descriptor, ...]:
    """The manifests an index lists; one that is a manifest as well is refused."""
    document = decode_object(data, "an index")
    if "layers" in document or "config" in document:
        raise Corrupt("an index claims to be a manifest as well")
    return descriptors(document.get("manifests"), "the list of manifests")


def describe(media_type: str, data: bytes) -> Descriptor:
    """What refers to a small document."""
    return Descriptor(media_type, digest_of(data), len(data))


def build(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> bytes:
    """A new OCI manifest."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.document(),
        "layers": [layer.document() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return encode(document)
