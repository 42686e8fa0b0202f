"""Images in the shapes of Docker's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proa.image.catalog import Image
from proa.image.config import created_seconds


def summary(image: Image) -> dict[str, Any]:
    """An entry of `docker images`."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.names),
        "RepoDigests": list(image.digests),
        "Created": created_seconds(image.created),
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Labels": image.defaults.get("Labels") or {},
        "Containers": -1,
    }


def details(image: Image) -> dict[str, Any]:
    """`docker image inspect`."""
    document = image.config
    return {
        "Id": image.id,
        "RepoTags": list(image.names),
        "RepoDigests": list(image.digests),
        "Parent": "",
        "Comment": _last_comment(image),
        "Created": image.created,
        "DockerVersion": "",
        "Author": document.get("author") or "",
        "Config": image.defaults,
        "Architecture": image.details.architecture,
        "Variant": document.get("variant") or "",
        "Os": image.details.os,
        "Size": image.size_bytes,
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def _last_comment(image: Image) -> str:
    steps = image.details.history
    return str(steps[-1].get("comment") or "") if steps else ""


def history(image: Image, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """`docker history`: steps newest first; `sizes` are those of the layers, lowest first."""
    steps = image.details.history or tuple({} for _ in sizes)
    left = list(sizes)
    result: list[dict[str, Any]] = []
    for step in steps:
        size = left.pop(0) if left and not step.get("empty_layer") else 0
        result.append({
            "Id": "<missing>",
            "Created": created_seconds(step.get("created") or image.created),
            "CreatedBy": str(step.get("created_by") or ""),
            "Tags": None,
            "Size": size,
            "Comment": str(step.get("comment") or ""),
        })  # fmt: skip
    result.reverse()
    if result:
        result[0] |= {"Id": image.id, "Tags": list(image.names)}
    return result
