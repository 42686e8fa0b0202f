"""`/containers`: the life of an instance, and what is known of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Reply, Streamed, json_bytes, json_reply
from proa.api.docker import bodies, lookup
from proa.api.docker.framing import STDERR, frame
from proa.api.docker.system import ARCHITECTURES
from proa.api.docker.times import seconds
from proa.api.errors import message_of
from proa.api.request import Request
from proa.engine.options import LogOptions
from proa.errors import Conflict, ImageNotFound, Invalid, NotFound, ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.engine.instance import Instance

DONE = Reply(204)
WAIT_TICK_SECONDS = 5.0
PIECE_BYTES = 1 << 15
WAIT_CONDITIONS = frozenset({"not-running", "next-exit", "removed"})
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
PRUNE_FILTERS = frozenset({"until", "label", "label!"})


def listing(engine: Engine, request: Request) -> Answer:
    """GET /containers/json."""
    limit = request.whole("limit") or 0
    every = request.flag("all") or limit > 0
    found = engine.list(every, bodies.filters(request))
    return json_reply([engine.summary(item) for item in (found[:limit] if limit > 0 else found)])


def create(engine: Engine, request: Request) -> Answer:
    """POST /containers/create."""
    config = bodies.read(request)
    image = config.get("Image") or ""
    if not isinstance(image, str) or not (image or config.get("Proa")):
        raise Invalid("field 'Image' must name an image")
    name = request.text("name").removeprefix("/") or None
    try:
        warnings: list[str] = []
        if image:
            warnings = _check_platform(request.text("platform"), engine.images.inspect(image))
        made = engine.create(name, config)
        warnings += _advised(made)
    except ImageNotFound:
        raise lookup.missing_image(image) from None
    return json_reply({"Id": made.id, "Warnings": warnings}, 201)


def _advised(made: Instance) -> list[str]:
    """Which form was chosen, and why, where that was left to us."""
    if not made.record.advice:
        return []
    from proa.engine import advise

    return [advise.said(made.record.advice)]


def _check_platform(wanted: str, image: dict[str, Any]) -> list[str]:
    """Refuse an image of another platform than the one asked for (`linux/amd64`, `linux`).

    Warns, when none was asked for, of one that will be emulated.
    """
    system, _, machine = wanted.partition("/")
    machine = machine.partition("/")[0]
    offered = {"os": image["Os"], "architecture": image["Architecture"]}
    here = ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    if not machine and offered["architecture"] not in ("", here):
        return [f"the image is for 'linux/{offered['architecture']}': it will be emulated"]
    asked = {"os": system, "architecture": ARCHITECTURES.get(machine, machine)}
    for key, value in asked.items():
        if value and offered[key] and value != offered[key]:
            raise ImageNotFound(f"the image is for {key} '{offered[key]}', not for '{wanted}'")
    return []


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/json."""
    return json_reply(engine.inspect(lookup.instance(engine, request).id))


def start(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/start."""
    try:
        engine.start(lookup.instance(engine, request).id)
    except ImageNotFound as error:
        raise Conflict(error.message, hint=error.hint) from None  # 404 would mean no container
    return DONE


def stop(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/stop."""
    found = lookup.instance(engine, request)
    engine.stop(found.id, request.whole("t"), request.text("signal"))
    return DONE


def restart(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/restart."""
    engine.restart(lookup.instance(engine, request).id, request.whole("t"))
    return DONE


def kill(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/kill."""
    engine.kill(lookup.instance(engine, request).id, request.text("signal") or "SIGKILL")
    return DONE


def pause(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/pause."""
    engine.pause(lookup.instance(engine, request).id)
    return DONE


def unpause(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/unpause."""
    engine.unpause(lookup.instance(engine, request).id)
    return DONE


def rename(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/rename."""
    found = lookup.instance(engine, request)
    name = request.text("name").removeprefix("/")
    if not name:
        raise Invalid("Neither old nor new names may be empty")
    engine.rename(found.id, name)
    return DONE


def update(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/update."""
    found = lookup.instance(engine, request)
    engine.update(found.id, bodies.read(request))
    return json_reply({"Warnings": []})


def resize(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/resize."""
    found = lookup.instance(engine, request)
    engine.resize(found.id, *terminal_size(request))
    return Reply(200)


def terminal_size(request: Request) -> tuple[int, int]:
    """Rows and columns, as the wire to init can hold them."""
    rows, columns = request.whole("h"), request.whole("w")
    for name, value in (("h", rows), ("w", columns)):
        if value is None or not 0 <= value < 65536:
            raise Invalid(f"invalid terminal size '{name}={request.text(name)}'")
    return rows or 0, columns or 0


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /containers/{id}."""
    found = lookup.instance(engine, request)
    engine.remove(found.id, request.flag("force"), request.flag("v"))
    return DONE


def top(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/top."""
    found = lookup.instance(engine, request)
    titles, rows = engine.top(found.id, request.text("ps_args", "-ef"))
    return json_reply({"Titles": titles, "Processes": rows})


def prune(engine: Engine, request: Request) -> Answer:
    """POST /containers/prune."""
    given = bodies.filters(request)
    bodies.known_filters(given, PRUNE_FILTERS)
    until = seconds(given.get("until", ["0"])[0])
    labels = {key: given[key] for key in ("label", "label!") if key in given}
    deleted: list[str] = []
    for item in engine.list(True, labels | {"status": ["created", "exited"]}):
        if until and item.created / 1e9 >= until:
            continue
        try:
            engine.remove(item.id, False, False)
        except (NotFound, Conflict):
            continue  # removed or started by somebody meanwhile
        deleted.append(item.id)
    return json_reply({"ContainersDeleted": deleted or None, "SpaceReclaimed": 0})


def wait(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/wait: the head leaves at once, the body when the condition holds."""
    found = lookup.instance(engine, request)
    condition = request.text("condition") or "not-running"
    if condition not in WAIT_CONDITIONS:
        raise Invalid(f'invalid condition: "{condition}"')
    return Streamed(_waited(engine.wait_begin(found.id, condition)))


def _waited(outcome: Callable[[float | None], tuple[int, str] | None]) -> Iterator[bytes | None]:
    while (ended := outcome(WAIT_TICK_SECONDS)) is None:
        yield None
    code, error = ended
    answer: dict[str, Any] = {"StatusCode": code}
    if error:
        answer["Error"] = {"Message": error}
    yield json_bytes(answer)


def logs(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/logs."""
    found = lookup.instance(engine, request)
    options = LogOptions(
        follow=request.flag("follow"),
        stdout=request.flag("stdout"),
        stderr=request.flag("stderr"),
        since=seconds(request.text("since")),
        until=seconds(request.text("until")),
        tail=_tail(request.text("tail")),
        timestamps=request.flag("timestamps"),
    )
    if not (options.stdout or options.stderr):
        raise Invalid("Bad parameters: you must choose at least one stream")
    pieces = _framed(engine.logs(found.id, options), framed=not found.tty)
    return Streamed(pieces, RAW_STREAM if found.tty else stream_kind(request))


def stream_kind(request: Request) -> str:
    """Older clients know one name for both forms of a stream."""
    return MULTIPLEXED_STREAM if request.version >= (1, 42) else RAW_STREAM


def _framed(items: Iterator[Any], *, framed: bool) -> Iterator[bytes | None]:
    """A frame per line, as dockerd has it, but many of them in one piece."""
    piece = bytearray()
    try:
        for item in items:
            if item is not None:
                piece += frame(*item) if framed else item[1]
            if piece and (item is None or len(piece) >= PIECE_BYTES):
                yield bytes(piece)
                piece.clear()
            if item is None:
                yield None
        yield bytes(piece)
    except ProaError as error:
        yield bytes(piece)
        line = message_of(error).encode() + b"\n"
        yield frame(STDERR, line) if framed else line


def _tail(text: str) -> int | None:
    """A number of lines; everything for Docker's `all` and, as in dockerd, for nonsense."""
    return int(text[:18]) if text.isascii() and text.isdigit() else None
