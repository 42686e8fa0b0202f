"""Manifests of images whose plain layers have been compressed for a registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from proa.image import manifest
from proa.image.manifest import Descriptor, Manifest
from proa.image.registry.client import Document


def media_type(plain: str, kind: str) -> str:
    """The type of a layer once it is compressed; Docker has no name for zstd, so OCI's is taken."""
    if "docker" in plain and kind == "gzip":
        return f"{plain}.gzip"
    return f"{manifest.OCI_LAYER}+{kind}"


def is_made_of(made: Manifest, plain: Manifest, kind: str) -> bool:
    """Whether a manifest is another one with the plain layers compressed this way.

    One configuration means the same plain layers, for it has their digests.
    """
    if made.config.digest != plain.config.digest or len(made.layers) != len(plain.layers):
        return False
    pairs = zip(made.layers, plain.layers, strict=True)
    return made.layers != plain.layers and all(
        new.digest == old.digest or new.media_type.endswith(kind) for new, old in pairs
    )


def document(data: bytes, old: Manifest, layers: Sequence[Descriptor]) -> Document:
    """The manifest `data` with these layers: byte for byte itself when none is another."""
    fields = manifest.decode_object(data, "a manifest")
    kind = fields.get("mediaType") or manifest.OCI_MANIFEST
    if [layer.digest for layer in layers] != [layer.digest for layer in old.layers]:
        if any(layer.media_type.startswith(manifest.OCI_LAYER) for layer in layers):
            kind, layers = manifest.OCI_MANIFEST, [_as_oci(layer) for layer in layers]
            fields["config"] = {**fields["config"], "mediaType": manifest.OCI_CONFIG}
        entries = zip(fields["layers"], layers, strict=True)
        fields["layers"] = [{**entry, **layer.document()} for entry, layer in entries]
        data = manifest.encode({**fields, "mediaType": kind})
    return Document(kind, manifest.digest_of(data), data)


def _as_oci(layer: Descriptor) -> Descriptor:
    """A layer of a Docker manifest under OCI's name."""
    ending = layer.media_type.rpartition("tar")[2].replace(".", "+")
    return replace(layer, media_type=manifest.OCI_LAYER + ending)
