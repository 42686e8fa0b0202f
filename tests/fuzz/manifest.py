"""Fuzz the readers of manifests, indexes and configurations."""

from __future__ import annotations

import json
from collections.abc import Callable

from proa.errors import Corrupt
from proa.image import config, manifest
from tests.fuzz.harness import Target, main

_DIGEST = "sha256:" + "a" * 64
_BLOB = {"mediaType": manifest.OCI_LAYER, "digest": _DIGEST, "size": 10}
_DOCUMENTS: tuple[dict[str, object], ...] = (
    {"schemaVersion": 2, "mediaType": manifest.OCI_MANIFEST, "config": _BLOB, "layers": [_BLOB]},
    {"schemaVersion": 2, "manifests": [{
        **_BLOB, "platform": {"os": "linux"}, "annotations": {"a": "b"}, "artifactType": "x",
    }]},
    {"architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00.123456789Z",
     "config": {"Env": ["A=b"], "Cmd": ["x"], "Labels": {"a": "b"}, "ExposedPorts": {"1/tcp": {}},
                "Healthcheck": {"Test": ["NONE"]}, "User": "1:2"},
     "rootfs": {"type": "layers", "diff_ids": [_DIGEST]}, "history": [{"empty_layer": True}]},
)  # fmt: skip
WORDS = tuple(
    word.encode()
    for word in (
        "null", "true", "-1", "1e400", "1.5", "[]", "{}", '""', "9" * 30, "NaN", "[" * 500,
        '"mediaType":', '"layers":', '"manifests":', '"config":', '"digest":', '"size":',
        '"\\u0000"', '"sha256:../../x"', f'"{_DIGEST}"', ",", ":", '"\\ud800"', "{" * 20,
        '"created":', '"history":', '"diff_ids":', '"Env":', '"0000-00-00T00:00:00Z"',
    )
)  # fmt: skip
_READERS: tuple[Callable[[bytes], object], ...] = (
    manifest.parse_manifest,
    manifest.parse_index,
    config.parse,
)


def check(data: bytes) -> object:
    """Every reader takes it or says that it is corrupt; nothing is two things at once."""
    said = tuple(_refusal(reader, data) for reader in _READERS)
    assert said[0] or said[1], "a manifest and an index at once"
    return said


def _refusal(reader: Callable[[bytes], object], data: bytes) -> str:
    """Why the reader refuses it, without what differs from input to input; empty: it does not."""
    try:
        reader(data)
    except Corrupt as error:
        return str(error).split("'")[0]
    return ""


TARGET = Target("manifest", check, [json.dumps(item).encode() for item in _DOCUMENTS], WORDS)

if __name__ == "__main__":
    main(TARGET)
