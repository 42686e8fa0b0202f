"""What comparing the forms asks of an engine: memory, sizes, cold files, the host."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, json_reply
from proa.api.docker import lookup
from proa.api.request import Request

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def memory(engine: Engine, request: Request) -> Answer:
    """GET /proa/instances/{id}/memory: where the memory is that it costs the host."""
    found = engine.measures.memory(lookup.instance(engine, request))
    return json_reply({
        "Parts": _rows(found.parts), "Beside": _rows(found.beside),
        "PssBytes": found.pss_bytes,
        "PrivateBytes": found.private_bytes, "SharedBytes": found.shared_bytes,
        "Processes": found.processes, "CpuNs": found.cpu_ns,
    })  # fmt: skip


def sizes(engine: Engine, request: Request) -> Answer:
    """GET /proa/images/{name}/sizes; a name with a slash in front is a disk's file.

    With `inside` a guest reads a disk, for its ledger; with `compress` plain layers are measured
    as a push would send them.
    """
    found = engine.measures.sizes(
        request.parameter, inside=request.flag("inside"), compress=request.flag("compress")
    )
    return json_reply(_capitals(asdict(found)))


def cool(engine: Engine, request: Request) -> Answer:
    """POST /proa/images/{name}/cool: drop from the page cache what starting it reads."""
    parts = engine.measures.cool(request.parameter)
    return json_reply({
        "Parts": _rows(parts),
        "ResidentBefore": sum(part.resident_before for part in parts),
        "ResidentAfter": sum(part.resident_after for part in parts),
    })  # fmt: skip


def host(engine: Engine, request: Request) -> Answer:
    """GET /proa/host: what runs here, as names and values."""
    return json_reply(engine.measures.host())


def _rows(items: Any) -> list[dict[str, Any]]:
    return [_capitals(asdict(item)) for item in items]


def _capitals(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.title().replace("_", ""): _capitals(item) for key, item in value.items()}
    return [_capitals(item) for item in value] if isinstance(value, list | tuple) else value
