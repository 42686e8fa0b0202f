"""`/proa/disks` and an instance's disks: what they are made of, who holds the bytes, changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import bodies, lookup
from proa.api.request import Request
from proa.engine.fields import Fields

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def table(engine: Engine, request: Request) -> Answer:
    """GET /proa/disks; `instance` narrows it."""
    reference = request.text("instance")
    return json_reply(engine.disk_table(engine.get(reference).id if reference else ""))


def listing(engine: Engine, request: Request) -> Answer:
    """GET /proa/instances/{id}/disks."""
    return json_reply(engine.disks(lookup.instance(engine, request).id))


def flatten(engine: Engine, request: Request) -> Answer:
    """POST /proa/instances/{id}/flatten; answered when it is done."""
    engine.flatten(lookup.instance(engine, request).id)
    return Reply(204)


def rebase(engine: Engine, request: Request) -> Answer:
    """POST /proa/instances/{id}/rebase with `Base`, a path, and `Moved`."""
    wanted = Fields(bodies.read(request))
    found = lookup.instance(engine, request)
    engine.rebase(found.id, wanted.text("Base"), moved=wanted.boolean("Moved"))
    return Reply(204)


def rollback(engine: Engine, request: Request) -> Answer:
    """POST /proa/instances/{id}/rollback; `Snapshot` empty for the image, `Force` kills first."""
    wanted = Fields(bodies.read(request, required=False))
    found = lookup.instance(engine, request)
    engine.rollback(found.id, wanted.text("Snapshot"), force=wanted.boolean("Force"))
    return Reply(204)
