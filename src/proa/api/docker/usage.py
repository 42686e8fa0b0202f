"""`/system/df`: what takes the disk, and how much of it would come free."""

from __future__ import annotations

import collections
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, json_reply
from proa.api.docker import volumes
from proa.api.request import Request
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def disk_usage(engine: Engine, request: Request) -> Answer:
    """GET /system/df; `type` narrows it.

    Of images, `Size`, `SharedSize`, `UniqueSize` and `LayersSize` are bytes of the disk: blobs,
    unpacked layers and a vm's disk alike, as `du` counts them.
    """
    answer: dict[str, Any] = {"LayersSize": 0, "BuildCache": []}
    for kind in request.query.get("type") or KINDS:
        if kind not in KINDS:
            raise Invalid(f"unknown object type '{kind}'")
        answer |= KINDS[kind](engine)
    return json_reply(answer)


def _images(engine: Engine) -> dict[str, Any]:
    users = collections.Counter(item.image_id for item in engine.list(True, {}))
    usage = engine.images.usage()
    images = []
    for image in engine.images.list():
        found = usage.images.get(image["Id"])
        if found is not None:  # else it came this moment
            images.append(image | {
                "Containers": users[image["Id"]],
                "Size": found.size_bytes,
                "SharedSize": found.shared_bytes,
                "UniqueSize": found.size_bytes - found.shared_bytes,
            })  # fmt: skip
    return {"Images": images, "LayersSize": usage.total_bytes}


def _containers(engine: Engine) -> dict[str, Any]:
    own = engine.disk_bytes()  # of vms' disks; a container's writable layer is not counted
    return {
        "Containers": [
            engine.summary(item) | ({"SizeRw": own[item.name]} if item.name in own else {})
            for item in engine.list(True, {})
        ]
    }


def _volumes(engine: Engine) -> dict[str, Any]:
    unknown = {"UsageData": {"Size": -1, "RefCount": -1}}
    return {"Volumes": [volumes.shape(volume) | unknown for volume in engine.volumes.list()]}


def _build_cache(engine: Engine) -> dict[str, Any]:
    """One row per step that would not be run again; a layer that images have is shared."""
    usage = engine.images.usage()
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for record in engine.images.build_cache.all():
        first = record.diff_id not in seen
        seen.add(record.diff_id)
        rows.append({
            "ID": record.key[:25],
            "Type": "regular",
            "Description": record.text,
            "InUse": False,
            "Shared": record.diff_id not in usage.alone,
            "Size": usage.layers.get(record.diff_id, 0) if first else 0,
            "CreatedAt": _time(record.made),
            "LastUsedAt": _time(record.used),
            "UsageCount": record.uses,
        })  # fmt: skip
    rows += map(_cache_mount, engine.images.cache_mounts.all())
    return {"BuildCache": rows}


def _cache_mount(found: Any) -> dict[str, Any]:
    return {
        "ID": found.name[:25],
        "Type": "exec.cachemount",
        "Description": f"cache mount '{found.id}'",
        "InUse": found.busy,
        "Shared": False,
        "Size": found.size_bytes,
        "CreatedAt": _time(found.made),
        "LastUsedAt": _time(found.used),
        "UsageCount": 1,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


KINDS: dict[str, Callable[[Engine], dict[str, Any]]] = {
    "image": _images,
    "container": _containers,
    "volume": _volumes,
    "build-cache": _build_cache,
}


def build_prune(engine: Engine, request: Request) -> Answer:
    """POST /build/prune: every step is forgotten, caches no step uses are emptied; layers of
    images stay."""
    keys = [record.key for record in engine.images.build_cache.all()]
    engine.images.build_cache.forget(keys)
    freed = engine.images.collect() + engine.images.cache_mounts.prune()
    return json_reply(
        {"CachesDeleted": [key[:25] for key in keys] or None, "SpaceReclaimed": freed}
    )
