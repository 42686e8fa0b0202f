"""`/containers/{id}/archive`: files into and out of an instance, as tar."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from proa.api.answer import Answer, Reply, Streamed
from proa.api.docker import lookup
from proa.api.docker.times import rfc3339
from proa.api.request import Request
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine

TAR = "application/x-tar"


def stat(engine: Engine, request: Request) -> Answer:
    """HEAD /containers/{id}/archive."""
    found = lookup.instance(engine, request)
    return Reply(200, fields=_stat_field(engine, found.id, _path(request)))


def get(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/archive."""
    found = lookup.instance(engine, request)
    path = _path(request)
    field = _stat_field(engine, found.id, path)
    return Streamed(engine.archive_get(found.id, path), TAR, field)


def put(engine: Engine, request: Request) -> Answer:
    """PUT /containers/{id}/archive."""
    found = lookup.instance(engine, request)
    engine.archive_put(
        found.id,
        _path(request),
        request.file(),
        no_overwrite_dir=request.flag("noOverwriteDirNonDir"),
        copy_uid_gid=request.flag("copyUIDGID"),
    )
    return Reply(200)


def _stat_field(engine: Engine, identity: str, path: str) -> tuple[tuple[str, str], ...]:
    facts = engine.archive_stat(identity, path)
    shown = facts | {"mtime": rfc3339(int(facts["mtime"] * 1e9))}
    text = json.dumps(shown, separators=(",", ":"))
    return (("X-Docker-Container-Path-Stat", base64.b64encode(text.encode()).decode()),)


def _path(request: Request) -> str:
    path = request.text("path")
    if not path:
        raise Invalid("bad parameter: 'path' cannot be empty")
    if "\0" in path:
        raise Invalid("field 'path' holds a NUL byte")
    return path
