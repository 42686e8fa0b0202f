"""`/events`: what happens, as JSON lines, filtered here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Streamed, json_bytes
from proa.api.docker import bodies
from proa.api.docker.times import seconds
from proa.api.request import Request

if TYPE_CHECKING:
    from proa.engine.engine import Engine

Event = dict[str, Any]
Filters = dict[str, list[str]]
CONTAINER, IMAGE = "container", "image"  # types of actors, not isolations
ACTORS = frozenset({CONTAINER, IMAGE, "network", "volume"})
KNOWN = frozenset({*ACTORS, "type", "event", "label", "scope", "daemon"})


def events(engine: Engine, request: Request) -> Answer:
    """GET /events."""
    wanted = bodies.filters(request)
    bodies.known_filters(wanted, KNOWN)
    since = seconds(request.text("since")) or None
    until = seconds(request.text("until")) or None
    return Streamed(_lines(engine.events.stream(since, until), wanted))


def _lines(stream: Iterator[Event | None], wanted: Filters) -> Iterator[bytes | None]:
    for event in stream:
        if event is None:
            yield None
        elif matches(event, wanted):
            yield json_bytes(_complete(event))


def matches(event: Event, wanted: Filters) -> bool:
    """Whether an event passes: any value of a filter, every filter."""
    return all(not values or _passes(event, key, values) for key, values in wanted.items())


def _passes(event: Event, key: str, values: list[str]) -> bool:
    attributes = event["Actor"].get("Attributes", {})
    if key == "type":
        return event["Type"] in values
    if key == "scope":
        return event.get("scope", "local") in values
    if key == "event":
        action = event["Action"]
        return any(action == value or action.startswith(f"{value}:") for value in values)
    if key == "label":
        return all(_has_label(attributes, value) for value in values)
    if key in ACTORS:
        return _names(event, key, values)
    return False


def _has_label(attributes: dict[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in attributes and (not equals or attributes[name] == value)


def _names(event: Event, kind: str, values: list[str]) -> bool:
    """Whether the event is about one of the named; an image also by what runs from it."""
    actor = event["Actor"]
    attributes = actor.get("Attributes", {})
    if event["Type"] != kind:
        return kind == IMAGE and attributes.get("image") in values
    identity, name = actor["ID"], attributes.get("name")
    return any(
        value in (identity, name) or (len(value) >= 12 and identity.startswith(value))
        for value in values
    )


def _complete(event: Event) -> Event:
    """With the fields of old clients."""
    if event["Type"] != CONTAINER:
        return event
    image = event["Actor"].get("Attributes", {}).get("image", "")
    return {"status": event["Action"], "id": event["Actor"]["ID"], "from": image} | event
