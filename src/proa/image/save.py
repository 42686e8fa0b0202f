"""Images that go out: tars that are an OCI layout, and what `docker load` always took as well."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from proa.errors import Corrupt, Invalid
from proa.image import manifest, referrers
from proa.image.catalog import Image
from proa.image.layer.stream import CHUNK, Hashed
from proa.image.layout import INDEX, LAYOUT, Layout, Named
from proa.image.manifest import Descriptor
from proa.image.reference import parse

FORMATS = ("docker-archive", "oci-archive")


@dataclass(frozen=True)
class _Chosen:
    """An image, the normalised names it was asked for by, and what belongs to it."""

    image: Image
    names: list[str]
    index: str  # the digest of the index it came from, when that is kept
    artifacts: list[Named]


def write(
    layout: Layout, chosen: Sequence[tuple[Image, str]], file: BinaryIO, kind: str = FORMATS[0]
) -> None:
    """Write images, each with the name it was asked for by (or none), and what is about them.

    `oci-archive` is an OCI layout; `docker-archive` is one too, and has a `manifest.json`.
    """
    if kind not in FORMATS:
        raise Invalid(f"unknown format '{kind}'", hint=f"known are {', '.join(FORMATS)}")
    lines = layout.read_index()
    names: dict[str, list[str]] = {}
    images = {image.manifest_digest: image for image, _ in chosen}
    for image, name in chosen:
        known = names.setdefault(image.manifest_digest, [])
        known += [name] if name and name not in known else []
    everything = [
        _Chosen(image, names[digest], _index_of(layout, image), _artifacts(lines, image.known_by))
        for digest, image in images.items()
    ]
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as out:
        out.copybufsize = CHUNK  # type: ignore[attr-defined]  # documented for `open` alone
        for digest in dict.fromkeys(blob for item in everything for blob in _blobs(layout, item)):
            _add_blob(out, layout, digest)
        _add(out, "index.json", manifest.encode(_index(layout, everything)))
        if kind == "docker-archive":
            _add(out, "manifest.json", manifest.encode(_docker(everything)))
        _add(out, "oci-layout", LAYOUT)


def _index_of(layout: Layout, image: Image) -> str:
    others = [digest for digest in image.known_by if digest != image.manifest_digest]
    return next((digest for digest in others if layout.blob(digest).exists()), "")


def _artifacts(lines: Sequence[Named], subjects: Sequence[str]) -> list[Named]:
    """Those about these, and those about them in turn."""
    found: list[Named] = []
    wanted = set(subjects)
    while more := [line for line in lines if line.subject in wanted and line not in found]:
        found += more
        wanted |= {line.manifest.digest for line in more}
    return found


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _blobs(layout: Layout, chosen: _Chosen) -> list[str]:
    image = chosen.image
    layers = [layer.digest for layer in image.manifest.layers]
    about = [
        digest for line in chosen.artifacts for digest in sorted(referrers.parts(layout, line))
    ]
    first = [image.manifest_digest, image.manifest.config.digest, *layers]
    return [*first, *([chosen.index] if chosen.index else []), *about]


def _index(layout: Layout, everything: Sequence[_Chosen]) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for item in everything:
        image = item.image
        data = layout.document(image.manifest_digest)
        kind = manifest.decode_object(data, "a manifest").get("mediaType") or manifest.OCI_MANIFEST
        platform = {"architecture": image.details.architecture, "os": image.details.os}
        for name in item.names or [""]:
            notes = {INDEX: item.index} if item.index else {}
            if name:
                notes["io.containerd.image.name"] = name
                notes["org.opencontainers.image.ref.name"] = parse(name).tag or name
            whole = Descriptor(kind, image.manifest_digest, len(data), notes, platform)
            lines.append(whole.document())
    about = [
        replace(line.manifest, annotations={}) for item in everything for line in item.artifacts
    ]
    lines += [line.document() for line in about]
    return {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": lines}


def _docker(everything: Sequence[_Chosen]) -> list[dict[str, Any]]:
    return [
        {
            "Config": _path(item.image.manifest.config.digest),
            "RepoTags": [parse(name).familiar for name in item.names if parse(name).tag] or None,
            "Layers": [_path(layer.digest) for layer in item.image.manifest.layers],
        }
        for item in everything
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
