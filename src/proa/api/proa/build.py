"""`/proa/build`: builds with all that a Containerfile may ask for: secrets, agents, named contexts.

The body is one line of JSON (`docs/reference.md` lists its fields) and, when it says
`"upload": true`, a tar behind it, which is the context.  Without, `context` is a directory on this
host, read in place: whoever may speak to the engine's socket may read it anyway.

The answer is a stream of JSON lines: `vertex`, `output` (its data in base64), `transfer`, and at
the end `image` or `error`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from proa.api.answer import Answer
from proa.api.feed import Feed, Message, stream
from proa.api.request import Request
from proa.engine import building
from proa.engine.building import BuildRequest, Event, Origin, Output, Transfer
from proa.errors import BuildError, Invalid, ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine

ORDER_BYTES = 64 << 20  # secrets and the Containerfile are in it


def build(engine: Engine, request: Request) -> Answer:
    """POST /proa/build."""
    body = request.file()
    order = _order(body)
    asked = _request(order)
    origin = Origin(
        _text(order, "remote"), body if order.get("upload") is True else None, _text(order, "file")
    )

    def work(feed: Feed) -> Iterator[Message]:
        # The answer must not begin before the body was read: the server drops what is left of it.
        with building.with_files(engine.images, asked, origin, feed.check) as wanted:
            feed.say({"started": True})
            try:
                image = engine.build(wanted, lambda event: feed.say(*_message(event)), feed.left)
            except ProaError as error:
                yield {"error": _failure(error)}
                return
        yield {"image": {"id": image.id, "digest": image.manifest_digest, "names": image.names}}

    return stream(work, "build", held_back=0)


def _message(event: Event) -> tuple[Message, object]:
    """An event as a message, and the key of those it takes the place of."""
    if isinstance(event, Output):
        data = base64.b64encode(event.data).decode()
        return {"output": {"number": event.number, "stream": event.stream, "data": data}}, None
    if isinstance(event, Transfer):
        return {"transfer": asdict(event)}, (event.number, event.id)
    return {"vertex": asdict(event)}, None


def _failure(error: ProaError) -> Message:
    told: Message = {"message": error.message, "hint": error.hint, "code": error.code}
    if isinstance(error, BuildError):
        fields = ("file", "line", "column", "source", "step_exit")
        told |= {name: getattr(error, name) for name in fields}
    return told


# -- the order ------------------------------------------------------------------------------------


def _order(body: IO[bytes]) -> dict[str, Any]:
    line = body.readline(ORDER_BYTES + 1)
    if len(line) > ORDER_BYTES:
        raise Invalid(f"the order has more than '{ORDER_BYTES}' bytes", hint="smaller secrets?")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise Invalid("the first line of the body is not JSON") from None
    if not isinstance(found, dict):
        raise Invalid("the first line of the body is not a JSON object")
    unknown = found.keys() - _FIELDS
    if unknown:
        raise Invalid(f"unknown field '{min(unknown)}' in the order")
    return found


def _request(order: dict[str, Any]) -> BuildRequest:
    context = _text(order, "context")
    if context and not context.startswith("/"):
        raise Invalid(f"the context '{context}' is no absolute path")
    names = _list(order, "names")
    for name in names:
        building.familiar(name)
    ignore = order.get("ignore")
    return BuildRequest(
        _encoded(order, "containerfile"),
        name=_text(order, "name") or "Containerfile",
        context=Path(context) if context else None,
        names=names,
        target=_text(order, "target"),
        arguments=_map(order, "arguments"),
        labels=_map(order, "labels"),
        annotations=_map(order, "annotations"),
        contexts=_map(order, "contexts"),
        secrets={name: _bytes(name, text) for name, text in _map(order, "secrets").items()},
        ssh={name: Path(text) for name, text in _map(order, "ssh").items()},
        hosts=_list(order, "hosts"),
        logins=_map(order, "logins"),
        ignore=None if ignore is None else _encoded(order, "ignore"),
        isolation=_text(order, "isolation"),
        network=_text(order, "network") or "default",
        platform=_text(order, "platform"),
        pull=order.get("pull") is True,
        use_cache=order.get("no_cache") is not True,
        squash=order.get("squash") is True,
        epoch_seconds=_whole(order, "epoch_seconds"),
        shm_bytes=_whole(order, "shm_bytes") or 0,
        memory_bytes=_whole(order, "memory_bytes") or 0,
    )


_FIELDS = frozenset(
    "containerfile name context upload remote file names target arguments labels annotations "
    "contexts secrets ssh hosts logins ignore isolation network platform pull no_cache squash "
    "epoch_seconds shm_bytes memory_bytes".split()
)


def _text(order: dict[str, Any], name: str) -> str:
    return str(_of(order, name, str))


def _encoded(order: dict[str, Any], name: str) -> bytes:
    return _text(order, name).encode("utf-8", "surrogateescape")


def _list(order: dict[str, Any], name: str) -> tuple[str, ...]:
    found = _of(order, name, list)
    if not all(isinstance(one, str) for one in found):
        raise Invalid(f"'{name}' of the order has something that is no text")
    return tuple(found)


def _map(order: dict[str, Any], name: str) -> dict[str, str]:
    found = _of(order, name, dict)
    if not all(isinstance(one, str) for one in found.values()):
        raise Invalid(f"'{name}' of the order has a value that is no text")
    return dict(found)


def _whole(order: dict[str, Any], name: str) -> int | None:
    found = order.get(name)
    if found is not None and (not isinstance(found, int) or found < 0 or found >= 1 << 62):
        raise Invalid(f"'{name}' of the order is not a number that can be")
    return found


def _of(order: dict[str, Any], name: str, kind: type) -> Any:
    found = order.get(name)
    if found is None:
        return kind()
    if not isinstance(found, kind):
        raise Invalid(f"'{name}' of the order has the wrong type")
    return found


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Invalid(f"the secret '{name}' is not base64") from None
