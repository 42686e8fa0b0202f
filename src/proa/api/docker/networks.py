"""`/networks`: the engine's own, none, and those users make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import bodies
from proa.api.request import Request
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine

BUILTIN = ("bridge", "none")
FILTERS = frozenset({"name", "id", "driver", "type", "scope", "label", "dangling"})
PRUNE_FILTERS = frozenset({"label", "label!", "until"})


def listing(engine: Engine, request: Request) -> Answer:
    """GET /networks."""
    given = bodies.filters(request)
    bodies.known_filters(given, FILTERS)
    return json_reply([net for net in engine.networks_list() if _passes(net, given)])


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /networks/{id}: by name, id or the start of an id."""
    return json_reply(engine.network(request.parameter))


def create(engine: Engine, request: Request) -> Answer:
    """POST /networks/create."""
    return json_reply({"Id": engine.network_create(bodies.read(request)), "Warning": ""}, 201)


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /networks/{id}."""
    engine.network_remove(request.parameter)
    return Reply(204)


def connect(engine: Engine, request: Request) -> Answer:
    """POST /networks/{id}/connect."""
    body = bodies.read(request)
    engine.connect(request.parameter, _container(body), body.get("EndpointConfig"))
    return Reply(200)


def disconnect(engine: Engine, request: Request) -> Answer:
    """POST /networks/{id}/disconnect."""
    engine.disconnect(request.parameter, _container(bodies.read(request)))
    return Reply(200)


def _container(body: dict[str, Any]) -> str:
    name = body.get("Container")
    if not isinstance(name, str) or not name:
        raise Invalid("field 'Container' must name an instance")
    return name


def prune(engine: Engine, request: Request) -> Answer:
    """POST /networks/prune: those that no instance is in."""
    given = bodies.filters(request)
    bodies.known_filters(given, PRUNE_FILTERS)
    if "until" in given:
        raise Invalid("the filter 'until' is not supported for networks")

    def passes(labels: dict[str, str]) -> bool:
        wanted, unwanted = given.get("label", ()), given.get("label!", ())
        return all(bodies.has_label(labels, value) for value in wanted) and not any(
            bodies.has_label(labels, value) for value in unwanted
        )

    return json_reply({"NetworksDeleted": list(engine.networks_prune(passes)) or None})


def _passes(network: dict[str, Any], given: dict[str, list[str]]) -> bool:
    def any_of(key: str, test: Any) -> bool:
        return key not in given or any(test(value) for value in given[key])

    builtin = network["Name"] in BUILTIN
    return (
        any_of("name", lambda value: value in network["Name"])
        and any_of("id", lambda value: network["Id"].startswith(value))
        and any_of("driver", lambda value: value == network["Driver"])
        and any_of("type", lambda value: value == ("builtin" if builtin else "custom"))
        and any_of("scope", lambda value: value == "local")
        and any_of("dangling", lambda value: value not in ("true", "1") or not builtin)
        and all(bodies.has_label(network["Labels"], value) for value in given.get("label", ()))
    )
