"""`/volumes`: named directories that outlive instances."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import bodies
from proa.api.docker.times import rfc3339
from proa.api.request import Request
from proa.errors import Invalid, NotFound, Unsupported

if TYPE_CHECKING:
    from proa.engine.engine import Engine

ANONYMOUS = re.compile("[0-9a-f]{64}")
LIST_FILTERS = frozenset({"name", "driver", "label", "dangling"})
PRUNE_FILTERS = frozenset({"label", "label!", "all"})


class Volume(Protocol):
    """What is read of a volume."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def path(self) -> Path:
        """Its content on the host."""

    @property
    def created_ns(self) -> int:
        """When it was made."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What was said of it."""


def listing(engine: Engine, request: Request) -> Answer:
    """GET /volumes."""
    given = bodies.filters(request)
    bodies.known_filters(given, LIST_FILTERS)
    found = [shape(volume) for volume in engine.volumes.list() if _passes(engine, volume, given)]
    return json_reply({"Volumes": found, "Warnings": None})


def create(engine: Engine, request: Request) -> Answer:
    """POST /volumes/create: one that exists is answered as it is."""
    body = bodies.read(request, required=False)
    name = body.get("Name") or secrets.token_hex(32)
    labels = body.get("Labels") or {}
    if not isinstance(name, str):
        raise Invalid("field 'Name' must be a string")
    if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
        raise Invalid("field 'Labels' must be an object of strings")
    if body.get("Driver", "local") not in ("", "local", None):
        raise Unsupported(f"volume driver '{body['Driver']}' is not supported")
    if body.get("DriverOpts"):
        raise Unsupported("volume options are not supported")
    return json_reply(shape(engine.volumes.create(name, labels)), 201)


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /volumes/{name}."""
    try:
        return json_reply(shape(engine.volumes.get(request.parameter)))
    except NotFound:
        raise NotFound(f"get {request.parameter}: no such volume") from None


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /volumes/{name}."""
    name = request.parameter
    used_by = _user(engine, name)
    try:
        engine.volumes.remove(name, force=request.flag("force"), used_by=used_by)
    except NotFound:
        raise NotFound(f"get {name}: no such volume") from None
    return Reply(204)


def prune(engine: Engine, request: Request) -> Answer:
    """POST /volumes/prune: those no instance uses; named ones only with all=true."""
    given = bodies.filters(request)
    bodies.known_filters(given, PRUNE_FILTERS)
    every = any(value in ("true", "1") for value in given.get("all", []))
    deleted = []
    for volume in engine.volumes.list():
        if not (every or ANONYMOUS.fullmatch(volume.name)) or not _passes(engine, volume, given):
            continue
        if not _user(engine, volume.name):
            engine.volumes.remove(volume.name, force=True)
            deleted.append(volume.name)
    return json_reply({"VolumesDeleted": deleted or None, "SpaceReclaimed": 0})


def shape(volume: Volume) -> dict[str, Any]:
    """A volume as Docker shows it."""
    return {
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": str(volume.path),
        "CreatedAt": rfc3339(volume.created_ns),
        "Labels": volume.labels or None,
        "Options": None,
        "Scope": "local",
    }


def _user(engine: Engine, name: str) -> str:
    """The name of an instance that has the volume, or nothing."""
    for item in engine.list(True, {}):
        named = any(mount.kind == "volume" and mount.source == name for mount in item.spec.mounts)
        if named or name in item.record.volumes:
            return str(item.name)
    return ""


def _passes(engine: Engine, volume: Volume, given: dict[str, list[str]]) -> bool:
    names, drivers = given.get("name", []), given.get("driver", [])
    if names and not any(name in volume.name for name in names):
        return False
    if drivers and "local" not in drivers:
        return False
    if (dangling := given.get("dangling")) and (dangling[0] in ("true", "1")) == bool(
        _user(engine, volume.name)
    ):
        return False
    labels = volume.labels
    return all(bodies.has_label(labels, wanted) for wanted in given.get("label", [])) and not any(
        bodies.has_label(labels, refused) for refused in given.get("label!", [])
    )
