"""OCI image layouts: made here by hand, and checked against what image-spec demands of one."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image."
INDEX, MANIFEST, CONFIG = f"{OCI}index.v1+json", f"{OCI}manifest.v1+json", f"{OCI}config.v1+json"
LAYER = f"{OCI}layer.v1.tar"
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}")
_RESERVED = re.compile(r"[A-Za-z0-9]+([.:_-][A-Za-z0-9]+)*(/[A-Za-z0-9]+([.:_-][A-Za-z0-9]+)*)*")


@dataclass
class Maker:
    """A layout under construction."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Keep a blob; its descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def document(self, document: dict[str, Any], media_type: str, **more: Any) -> dict[str, Any]:
        """Keep a JSON document, laid out unlike anything that is canonical."""
        return self.blob(json.dumps(document, indent=3).encode(), media_type, **more)

    def image(self, *layers: bytes, architecture: str = "amd64", **more: Any) -> dict[str, Any]:
        """A manifest of plain layers; its descriptor."""
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = self.document(
            {"architecture": architecture, "os": "linux", "config": {"Cmd": ["x"]},
             "rootfs": {"type": "layers", "diff_ids": diff_ids}}, CONFIG,
        )  # fmt: skip
        blobs = [self.blob(layer, LAYER) for layer in layers]
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": blobs}
        platform = {"architecture": architecture, "os": "linux"}
        return self.document(document, MANIFEST, platform=platform, **more)

    def index(self, *items: dict[str, Any], **more: Any) -> dict[str, Any]:
        """An index of these; its descriptor."""
        return self.document({"schemaVersion": 2, "manifests": list(items)}, INDEX, **more)

    def artifact(self, subject: dict[str, Any], kind: str, body: bytes) -> dict[str, Any]:
        """An artifact about a manifest; its descriptor."""
        about = {key: subject[key] for key in ("mediaType", "digest", "size")}
        return self.document(
            {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "subject": about,
             "config": self.blob(b"{}", "application/vnd.oci.empty.v1+json"),
             "layers": [self.blob(body, "text/plain")]}, MANIFEST, artifactType=kind,
        )  # fmt: skip

    def files(self) -> dict[str, bytes]:
        """Everything, by its path in the layout."""
        listed = {"schemaVersion": 2, "manifests": self.listed}
        found = {f"blobs/sha256/{digest[7:]}": data for digest, data in self.blobs.items()}
        return found | {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps(listed).encode(),
        }

    def tar(self) -> bytes:
        """As an archive: files alone, no directories."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as out:
            for name, data in self.files().items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
        return buffer.getvalue()

    def write(self, directory: Path) -> Path:
        """As a directory."""
        for name, data in self.files().items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
        return directory


def unpacked(data: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {item.name: tar.extractfile(item).read() for item in tar if item.isfile()}  # type: ignore[union-attr]


# -- what image-spec demands ----------------------------------------------------------------------


def check(files: dict[str, bytes]) -> None:
    """Assert that these files are a valid layout, every document reachable in it included."""
    assert json.loads(files["oci-layout"])["imageLayoutVersion"] == "1.0.0"
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert name.removeprefix("blobs/sha256/") == hashlib.sha256(data).hexdigest()
    _check_index(json.loads(files["index.json"]), files, top=True)


def _check_index(document: dict[str, Any], files: dict[str, bytes], top: bool = False) -> None:
    assert document["schemaVersion"] == 2
    assert document.get("mediaType", INDEX) == INDEX
    assert "config" not in document and "layers" not in document
    for item in document["manifests"]:
        _check_descriptor(item, files, required=top)
        data = files.get(f"blobs/sha256/{item['digest'][7:]}")
        name = item.get("annotations", {}).get("org.opencontainers.image.ref.name")
        assert name is None or _RESERVED.fullmatch(name)
        if data is not None and item["mediaType"] == INDEX:
            _check_index(json.loads(data), files)
        elif data is not None:
            _check_manifest(json.loads(data), files)


def _check_manifest(document: dict[str, Any], files: dict[str, bytes]) -> None:
    assert document["schemaVersion"] == 2
    assert "manifests" not in document
    for item in (document["config"], *document["layers"]):
        _check_descriptor(item, files, required=True)
    if "subject" in document:
        _check_descriptor(document["subject"], files, required=False)
    if document["config"]["mediaType"] == CONFIG:
        _check_config(json.loads(files[f"blobs/sha256/{document['config']['digest'][7:]}"]))
    else:
        assert document.get("artifactType") or document["config"]["mediaType"]
        assert document["layers"]


def _check_config(document: dict[str, Any]) -> None:
    assert document["architecture"] and document["os"]
    assert document["rootfs"]["type"] == "layers"
    assert all(map(_DIGEST.fullmatch, document["rootfs"]["diff_ids"]))
    steps = document.get("history")
    if steps:
        filled = [step for step in steps if not step.get("empty_layer")]
        assert len(filled) == len(document["rootfs"]["diff_ids"])


def _check_descriptor(item: dict[str, Any], files: dict[str, bytes], required: bool) -> None:
    assert _MEDIA_TYPE.fullmatch(item["mediaType"])
    assert _DIGEST.fullmatch(item["digest"])
    assert type(item["size"]) is int and item["size"] >= 0
    assert all(isinstance(value, str) for value in item.get("annotations", {}).values())
    if "platform" in item:
        assert item["platform"]["architecture"] and item["platform"]["os"]
    data = files.get(f"blobs/sha256/{item['digest'][7:]}")
    assert data is not None or not required
    assert data is None or len(data) == item["size"]
