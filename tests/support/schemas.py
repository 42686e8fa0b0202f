"""The JSON schemas of the OCI image specification (tools/newer.sh unpacks them)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import referencing
from referencing.jsonschema import DRAFT4

from tests.support.paths import PEERS

FOLDER = PEERS.parent / "image-spec" / "schema"
_FILES = {
    "layout": "image-layout-schema.json", "index": "image-index-schema.json",
    "manifest": "image-manifest-schema.json", "config": "config-schema.json",
}  # fmt: skip


def available() -> bool:
    """Whether they are here."""
    return FOLDER.is_dir()


def faults(kind: str, document: Any) -> list[str]:
    """What a schema (layout, index, manifest, config) says against a document."""
    validator = jsonschema.Draft4Validator(_schema(_FILES[kind]), registry=_registry())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def layout_faults(directory: Path) -> list[str]:
    """What the schemas say against a whole layout: its index, and everything that refers to."""
    found = faults("layout", json.loads((directory / "oci-layout").read_text()))
    pending = [("index", (directory / "index.json").read_bytes())]
    while pending:
        kind, data = pending.pop()
        document = json.loads(data)
        found += [f"{kind} {fault}" for fault in faults(kind, document)]
        for item in document.get("manifests", []):
            which = "index" if "index" in item["mediaType"] else "manifest"
            pending.append((which, _blob(directory, item)))
        config = document.get("config", {})
        if kind == "manifest" and config["mediaType"].endswith("image.config.v1+json"):
            pending.append(("config", _blob(directory, config)))
    return found


def _blob(directory: Path, descriptor: Any) -> bytes:
    name: str = descriptor["digest"][7:]
    return (directory / "blobs" / "sha256" / name).read_bytes()


@functools.cache
def _schema(name: str) -> Any:
    """One file; the ids inside name places where nothing can be fetched, so they go."""
    return _without_ids(json.loads((FOLDER / name).read_text()))


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != "id" or not isinstance(v, str)}
        return {key: _without_ids(item) for key, item in kept.items()}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


@functools.cache
def _registry() -> Any:
    resources: Any = [
        (path.name, DRAFT4.create_resource(_schema(path.name))) for path in FOLDER.glob("*.json")
    ]
    return referencing.Registry().with_resources(resources)
