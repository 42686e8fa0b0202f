"""Logging in to whole machines, under `/proa/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.answer import Answer, json_reply
from proa.api.docker import lookup
from proa.api.request import Request

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def way(engine: Engine, request: Request) -> Answer:
    """GET /proa/instances/{id}/ssh: address, key, known hosts; for a client on the same host."""
    found = engine.ssh(lookup.instance(engine, request).id)
    return json_reply(
        {"Address": found.address, "Key": str(found.key),
         "KnownHosts": str(found.known_hosts), "Known": found.known}
    )  # fmt: skip
