"""The build API as its clients use it: an order goes out, events come back (`/proa/build`)."""

from __future__ import annotations

from proa.client import fastjson, faults
from proa.errors import BuildError, EngineUnavailable, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from proa.client.connection import Connection, Upload

CONTAINERFILES = ("Containerfile", "Dockerfile")  # looked for in this order
_PLACE = ("file", "line", "column", "source", "step_exit")


def events(
    connection: Connection, order: dict[str, Any], pour: Callable[[Upload], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Have an order carried out; its events, the last one is `image`.

    `pour` writes a tar that is the context.  Raises what the build failed with; a BuildError
    knows its place.
    """

    def produce(body: Upload) -> None:
        line = fastjson.dumps(order | ({"upload": True} if pour else {}))
        body.write(line.encode("utf-8", "surrogateescape") + b"\n")
        if pour:
            pour(body)

    answer = connection.upload("POST", "/proa/build", produce)
    for event in answer.json_lines():
        if "error" in event:
            raise failure(event["error"])
        yield event
        if "image" in event:
            return
    raise EngineUnavailable("the engine's answer ended before the build did")


def logins() -> dict[str, str]:
    """This user's logins by registry, each as the text of an X-Registry-Auth."""
    from proa.client import credentials

    return {
        credentials.normal(key): credentials.header(login)
        for key, login in credentials.all_logins().items()
    }


def failure(told: Any) -> ProaError:
    """The error that an `error` event stands for."""
    if not isinstance(told, dict):
        return ProaError(str(told))
    error = faults.from_answer(500, fastjson.dumps(told).encode())
    if isinstance(error, BuildError):
        for name in _PLACE:
            setattr(error, name, told.get(name) or getattr(error, name))
    return error
