"""`/exec`: further processes in a running instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import bodies, lookup
from proa.api.docker.attach import DEFAULT_DETACH_KEYS, detach_keys, entrust
from proa.api.docker.containers import RAW_STREAM, stream_kind, terminal_size
from proa.api.request import Request
from proa.errors import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def create(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/exec."""
    found = lookup.instance(engine, request)
    config = bodies.read(request)
    if not config.get("Cmd"):
        raise Invalid("No exec command specified")
    if found.state != "running":
        paused = found.state == "paused"
        why = "is paused, unpause the container before exec" if paused else "is not running"
        raise Conflict(f"container {found.id if not paused else request.parameter} {why}")
    keys = config.get("DetachKeys") or (DEFAULT_DETACH_KEYS if config.get("Tty") is True else "")
    if not isinstance(keys, str):
        raise Invalid("field 'DetachKeys' must be a string")
    config["DetachKeys"] = detach_keys(keys).decode("ascii")
    return json_reply({"Id": engine.exec_create(found.id, config)}, 201)


def start(engine: Engine, request: Request) -> Answer:
    """POST /exec/{id}/start."""
    body = bodies.read(request, required=False)
    detach, tty = _flag(body, "Detach"), _flag(body, "Tty")
    facts = _inspect(engine, request)
    if facts.get("Running") or facts.get("ExitCode") is not None:
        raise Conflict(f"exec '{request.parameter}' has already run")
    if detach:
        engine.exec_start(request.parameter, None, True, tty)
        return Reply(200)
    sock = request.upgrade(RAW_STREAM if tty else stream_kind(request))
    entrust(sock, lambda: engine.exec_start(request.parameter, sock, False, tty), framed=not tty)
    return None


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /exec/{id}/json."""
    return json_reply(_inspect(engine, request))


def resize(engine: Engine, request: Request) -> Answer:
    """POST /exec/{id}/resize."""
    _inspect(engine, request)
    engine.exec_resize(request.parameter, *terminal_size(request))
    return Reply(200)


def _inspect(engine: Engine, request: Request) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = engine.exec_inspect(request.parameter)
    except NotFound:
        raise NotFound(f"No such exec instance: {request.parameter}") from None
    return facts


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Invalid(f"field '{name}' must be true or false")
    return bool(value)
