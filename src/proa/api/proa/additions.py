"""What is added to an instance and taken from it, also while it runs: mounts and disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import bodies, lookup
from proa.api.request import Request
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def attach_mount(engine: Engine, request: Request) -> Answer:
    """POST /proa/instances/{id}/mounts with one of Docker's mounts."""
    engine.attach_mount(lookup.instance(engine, request).id, bodies.read(request))
    return Reply(204)


def detach_mount(engine: Engine, request: Request) -> Answer:
    """DELETE /proa/instances/{id}/mounts; `of` is a volume or a target."""
    engine.detach_mount(lookup.instance(engine, request).id, _of(request))
    return Reply(204)


def attach_disk(engine: Engine, request: Request) -> Answer:
    """POST /proa/instances/{id}/disks with `Path` or `Size`, `Format`, `ReadOnly`."""
    name = engine.attach_disk(lookup.instance(engine, request).id, bodies.read(request))
    return json_reply({"Name": name}, 201)


def detach_disk(engine: Engine, request: Request) -> Answer:
    """DELETE /proa/instances/{id}/disks; `of` is its name inside, or its path."""
    engine.detach_disk(lookup.instance(engine, request).id, _of(request))
    return Reply(204)


def _of(request: Request) -> str:
    what = request.text("of")
    if not what:
        raise Invalid("the query 'of' must say what to take away")
    return what
