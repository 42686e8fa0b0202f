"""`/networks`: the two there are, bridge and none, so that Docker's clients find them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, json_reply
from proa.api.docker import bodies
from proa.api.docker.times import NEVER
from proa.api.request import Request
from proa.errors import NotFound

if TYPE_CHECKING:
    from proa.engine.engine import Engine

DRIVERS = {"bridge": "bridge", "none": "null"}
FILTERS = frozenset({"name", "id", "driver", "type", "scope", "label", "dangling"})


def listing(engine: Engine, request: Request) -> Answer:
    """GET /networks."""
    given = bodies.filters(request)
    bodies.known_filters(given, FILTERS)
    return json_reply([net for net in map(_network, DRIVERS) if _passes(net, given)])


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /networks/{id}: by name, id or the start of an id."""
    for network in map(_network, DRIVERS):
        if request.parameter == network["Name"] or network["Id"].startswith(request.parameter):
            return json_reply(network)
    raise NotFound(f"network {request.parameter} not found")


def prune(engine: Engine, request: Request) -> Answer:
    """POST /networks/prune: the two there are stay."""
    return json_reply({"NetworksDeleted": None})


def _network(name: str) -> dict[str, Any]:
    return {
        "Name": name,
        "Id": hashlib.sha256(f"proa network {name}".encode()).hexdigest(),
        "Created": NEVER,
        "Scope": "local",
        "Driver": DRIVERS[name],
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def _passes(network: dict[str, Any], given: dict[str, list[str]]) -> bool:
    def any_of(key: str, test: Any) -> bool:
        return key not in given or any(test(value) for value in given[key])

    return (
        any_of("name", lambda value: value in network["Name"])
        and any_of("id", lambda value: network["Id"].startswith(value))
        and any_of("driver", lambda value: value == network["Driver"])
        and any_of("type", lambda value: value == "builtin")
        and any_of("scope", lambda value: value == "local")
        and any_of("dangling", lambda value: value not in ("true", "1"))
        and "label" not in given
    )
