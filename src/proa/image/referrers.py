"""Artifacts about images (SBOMs, signatures): OCI 1.1 manifests with a `subject`.

They lie in the layout's index beside the images, marked, so that other tools find them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from proa.errors import Corrupt
from proa.image import manifest
from proa.image.layout import Layout, Named
from proa.image.manifest import Descriptor

EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


def build(
    subject: Descriptor, artifact_type: str, body: Descriptor, annotations: Mapping[str, str]
) -> bytes:
    """An artifact manifest (image-spec, "guidelines for artifact usage")."""
    empty = Descriptor(EMPTY_TYPE, manifest.digest_of(EMPTY), len(EMPTY))
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": manifest.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty.document(),
        "layers": [body.document()],
        "subject": subject.document(),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return manifest.encode(document)


def subject_of(document: Mapping[str, Any]) -> Descriptor | None:
    """What an artifact's manifest is about; None when it is about nothing."""
    value = document.get("subject")
    return None if value is None else manifest.descriptor(value)


def line(digest: str, size: int, document: Mapping[str, Any], subject: Descriptor) -> Named:
    """An artifact's line in the index; its type is its own, or that of its configuration."""
    kind = document.get("artifactType") or ""
    if not kind and isinstance(document.get("config"), dict):
        kind = document["config"].get("mediaType") or ""
    if not isinstance(kind, str):
        raise Corrupt(f"the artifact type of '{digest}' is malformed")
    top = Descriptor(manifest.OCI_MANIFEST, digest, size, artifact_type=kind)
    return Named(top, "", 0, subject.digest)


def described(layout: Layout, line: Named) -> Descriptor:
    """An artifact as the referrers API lists it: its type, and its manifest's annotations."""
    document = manifest.decode_object(layout.document(line.manifest.digest), "a manifest")
    notes = manifest.strings(document.get("annotations"), "annotations")
    return replace(line.manifest, annotations=notes)


def about(
    layout: Layout, lines: Iterable[Named], subjects: Iterable[str], artifact_type: str = ""
) -> list[Descriptor]:
    """The artifacts about these manifests; of one type when it is given."""
    wanted = set(subjects)
    return [
        described(layout, line)
        for line in lines
        if line.subject in wanted
        and (not artifact_type or line.manifest.artifact_type == artifact_type)
    ]


def parts(layout: Layout, line: Named) -> set[str]:
    """Digests of everything an artifact consists of."""
    found = manifest.parse_manifest(layout.document(line.manifest.digest))
    return {line.manifest.digest, found.config.digest, *(item.digest for item in found.layers)}
