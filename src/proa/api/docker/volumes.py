"""`/volumes`: named directories that outlive instances."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import bodies
from proa.api.http import Request
from proa.errors import Conflict, Invalid, NotFound, Unsupported

if TYPE_CHECKING:
    from proa.engine.engine import Engine

LIST_FILTERS = frozenset({"name", "driver", "label", "dangling"})
PRUNE_FILTERS = frozenset({"label", "label!", "all"})


def listing(engine: Engine, request: Request) -> Answer:
    """GET /volumes."""
    given = bodies.filters(request)
    bodies.known_filters(given, LIST_FILTERS)
    found = [volume for volume in _volumes(engine).list() if _passes(volume, given)]
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
    return json_reply(_volumes(engine).create(name, labels), 201)


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /volumes/{name}."""
    return json_reply(_find(engine, request))


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /volumes/{name}."""
    try:
        _find(engine, request)
    except NotFound:
        if request.flag("force"):
            return Reply(204)
        raise
    _volumes(engine).remove(request.parameter, request.flag("force"))
    return Reply(204)


def prune(engine: Engine, request: Request) -> Answer:
    """POST /volumes/prune: those no instance uses; named ones only with all=true."""
    given = bodies.filters(request)
    bodies.known_filters(given, PRUNE_FILTERS)
    every = any(value in ("true", "1") for value in given.get("all", []))
    deleted = []
    for volume in _volumes(engine).list():
        if not (every or _anonymous(volume)) or not _passes(volume, given):
            continue
        try:
            _volumes(engine).remove(volume["Name"], False)
        except (Conflict, NotFound):
            continue  # in use, or gone meanwhile
        deleted.append(volume["Name"])
    return json_reply({"VolumesDeleted": deleted or None, "SpaceReclaimed": 0})


def _volumes(engine: Engine) -> Any:
    if engine.volumes is None:
        raise Unsupported("volumes are not supported yet")
    return engine.volumes


def _find(engine: Engine, request: Request) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _volumes(engine).inspect(request.parameter)
    except NotFound:
        raise NotFound(f"get {request.parameter}: no such volume") from None
    return found


def _anonymous(volume: dict[str, Any]) -> bool:
    name = volume["Name"]
    return len(name) == 64 and all(digit in "0123456789abcdef" for digit in name)


def _passes(volume: dict[str, Any], given: dict[str, list[str]]) -> bool:
    names, drivers = given.get("name", []), given.get("driver", [])
    if names and not any(name in volume["Name"] for name in names):
        return False
    if drivers and volume["Driver"] not in drivers:
        return False
    labels = volume.get("Labels") or {}
    return all(_labelled(labels, wanted) for wanted in given.get("label", [])) and not any(
        _labelled(labels, refused) for refused in given.get("label!", [])
    )


def _labelled(labels: dict[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
