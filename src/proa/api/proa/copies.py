"""`/proa/instances/{id}/…`: forks, snapshots, suspending and resuming."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import lookup
from proa.api.docker.registries import login_of
from proa.api.request import Request

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.engine.instance import Instance


def fork(engine: Engine, request: Request) -> Answer:
    """POST …/fork?count=N&name=PREFIX: copies of a running vm."""
    found = lookup.instance(engine, request)
    made = engine.copies.fork(found.id, request.whole("count") or 1, request.text("name"))
    return json_reply(
        {
            "Instances": [_identity(engine, item) for item in made.instances],
            "PausedNanoseconds": made.paused_ns,
            "CopiedBytes": made.copied_bytes,
        },
        201,
    )


def _identity(engine: Engine, instance: Instance) -> dict[str, Any]:
    """What a client wants to know of a copy; its ports are others than the source's."""
    settings = engine.inspect(instance.id)["NetworkSettings"]
    return {
        "Id": instance.id, "Name": instance.name, "IPAddress": settings["IPAddress"],
        "Ports": settings["Ports"],
    }  # fmt: skip


def migrate(engine: Engine, request: Request) -> Answer:
    """POST …/migrate?to=unix:///path: a running vm goes on at another engine."""
    done = engine.copies.migrate(lookup.instance(engine, request).id, request.text("to"))
    return json_reply(
        {
            "SentBytes": done.sent_bytes,
            "LastBytes": done.last_bytes,
            "PausedNanoseconds": done.paused_ns,
        }
    )


def receive(engine: Engine, request: Request) -> Answer:
    """POST /proa/migration: the connection becomes a wire between engines (engine/wire.py)."""
    engine.copies.receive(request.upgrade("application/x-proa-migration"))
    return None


def ended(engine: Engine, request: Request) -> Answer:
    """POST /proa/migration/ended?id=ID: what went away is over; its address is free again."""
    engine.copies.ended(request.text("id"))
    return Reply(204)


def suspend(engine: Engine, request: Request) -> Answer:
    """POST …/suspend: save memory, end QEMU."""
    engine.copies.suspend(lookup.instance(engine, request).id)
    return Reply(204)


def resume(engine: Engine, request: Request) -> Answer:
    """POST …/resume."""
    engine.copies.resume(lookup.instance(engine, request).id)
    return Reply(204)


def listing(engine: Engine, request: Request) -> Answer:
    """GET …/snapshots."""
    found = engine.copies.snapshots(lookup.instance(engine, request).id)
    return json_reply([_capitals(asdict(item)) for item in found])


def create(engine: Engine, request: Request) -> Answer:
    """POST …/snapshots?name=NAME&memory=1."""
    found = lookup.instance(engine, request)
    made = engine.copies.snapshot(found.id, request.text("name"), memory=request.flag("memory"))
    return json_reply(_capitals(asdict(made)), 201)


def inspect(engine: Engine, request: Request) -> Answer:
    """GET …/snapshot?name=NAME."""
    found = lookup.instance(engine, request)
    return json_reply(_capitals(engine.copies.inspect(found.id, request.text("name"))))


def restore(engine: Engine, request: Request) -> Answer:
    """POST …/restore?name=NAME&as=NEW: put back, or a new instance."""
    found = lookup.instance(engine, request)
    made = engine.copies.restore(found.id, request.text("name"), request.text("as"))
    return json_reply({"Id": made.id, "Name": made.name, "Status": made.state})


def push(engine: Engine, request: Request) -> Answer:
    """POST …/push-snapshot?name=NAME&to=REPOSITORY: send it to a registry."""
    found = lookup.instance(engine, request)
    login = login_of(request)
    digest = engine.copies.push(found.id, request.text("name"), request.text("to"), login)
    return json_reply({"Digest": digest}, 201)


def pull(engine: Engine, request: Request) -> Answer:
    """POST /proa/snapshots/pull?from=REPOSITORY&name=NAME: a new instance of a pushed one."""
    login = login_of(request)
    made = engine.copies.pull(request.text("from"), request.text("name"), login)
    return json_reply({"Id": made.id, "Name": made.name, "Status": made.state}, 201)


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE …/snapshots?name=NAME."""
    engine.copies.remove(lookup.instance(engine, request).id, request.text("name"))
    return Reply(204)


def _capitals(facts: dict[str, Any]) -> dict[str, Any]:
    return {key.title().replace("_", ""): value for key, value in facts.items()}
