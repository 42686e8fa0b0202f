"""What an instance changed: told, made an image, or exported with all the rest."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from proa.api.answer import Answer, Produced, json_reply
from proa.api.docker import bodies, lookup
from proa.api.request import Request
from proa.engine.options import CommitOptions
from proa.errors import Invalid, NotFound

if TYPE_CHECKING:
    from proa.engine.engine import Engine

TAR = "application/x-tar"
_SETTABLE = frozenset(
    ("User", "ExposedPorts", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild",
     "Labels", "StopSignal", "Healthcheck", "Shell")
)  # fmt: skip


def commit(engine: Engine, request: Request) -> Answer:
    """POST /commit?container=...; the body is a configuration whose fields win."""
    reference = request.text("container")
    if not reference:
        raise Invalid("no container given to commit")
    try:
        found = engine.get(reference)
    except NotFound:
        raise NotFound(f"No such container: {reference}") from None
    repository, tag = request.text("repo"), request.text("tag")
    body = bodies.read(request, required=False)
    wanted = CommitOptions(
        name=f"{repository}:{tag}" if repository and tag else repository,
        author=request.text("author"),
        message=request.text("comment"),
        pause=request.flag("pause") if "pause" in request.query else True,
        edits=tuple(line for text in request.query.get("changes", []) for line in _lines(text)),
        config=tuple((key, body[key]) for key in body if key in _SETTABLE),
    )
    return json_reply({"Id": engine.commit(found.id, wanted).id}, 201)


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def changes(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/changes."""
    found = engine.changes(lookup.instance(engine, request).id)
    return json_reply([{"Path": path, "Kind": kind} for kind, path in found] or None)


def export(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/export."""
    found = lookup.instance(engine, request)
    return Produced(functools.partial(engine.export, found.id), TAR)
