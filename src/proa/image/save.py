"""Images that go out: one tar that is an OCI layout and what `docker load` always took."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from typing import Any, BinaryIO

from proa.errors import Corrupt
from proa.image import manifest
from proa.image.catalog import Image
from proa.image.layer.stream import CHUNK, Hashed
from proa.image.layout import LAYOUT, Layout
from proa.image.manifest import Descriptor
from proa.image.reference import parse


def write(layout: Layout, chosen: Sequence[tuple[Image, str]], file: BinaryIO) -> None:
    """Write the chosen images, each with the name it was asked for by (or none)."""
    images = {image.manifest_digest: image for image, _ in chosen}
    names: dict[str, list[str]] = {digest: [] for digest in images}
    for image, name in chosen:
        if name and name not in names[image.manifest_digest]:
            names[image.manifest_digest].append(name)
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as out:
        out.copybufsize = CHUNK  # type: ignore[attr-defined]  # documented for `open` alone
        for item in dict.fromkeys(item for image in images.values() for item in _blobs(image)):
            _add_blob(out, layout, item)
        _add(out, "index.json", manifest.encode(_index(layout, images, names)))
        _add(out, "manifest.json", manifest.encode(_docker(images, names)))
        _add(out, "oci-layout", LAYOUT)


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _blobs(image: Image) -> list[str]:
    layers = [layer.digest for layer in image.manifest.layers]
    return [image.manifest_digest, image.manifest.config.digest, *layers]


def _index(layout: Layout, images: dict[str, Image], names: dict[str, list[str]]) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for digest, image in images.items():
        data = layout.document(digest)
        kind = manifest.decode_object(data, "a manifest").get("mediaType") or manifest.OCI_MANIFEST
        platform = {"architecture": image.details.architecture, "os": image.details.os}
        for name in names[digest] or [""]:
            notes = {"io.containerd.image.name": name} if name else {}
            if name:
                notes["org.opencontainers.image.ref.name"] = parse(name).tag or name
            lines.append(Descriptor(kind, digest, len(data), notes, platform).document())
    return {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": lines}


def _docker(images: dict[str, Image], names: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {
            "Config": _path(image.manifest.config.digest),
            "RepoTags": [parse(name).familiar for name in names[digest] if parse(name).tag] or None,
            "Layers": [_path(layer.digest) for layer in image.manifest.layers],
        }
        for digest, image in images.items()
    ]


def _member(name: str, size: int) -> tarfile.TarInfo:
    """The same images give the same bytes: no times, no owners."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def _add(out: tarfile.TarFile, name: str, data: bytes) -> None:
    out.addfile(_member(name, len(data)), io.BytesIO(data))


def _add_blob(out: tarfile.TarFile, layout: Layout, digest: str) -> None:
    path = layout.blob(digest)
    try:
        with path.open("rb", buffering=CHUNK) as blob:
            hashed = Hashed(blob)
            out.addfile(_member(_path(digest), path.stat().st_size), hashed)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise Corrupt(f"blob '{digest}' is missing") from error
    if hashed.digest != digest:
        raise Corrupt(f"blob '{digest}' has digest '{hashed.digest}'")
