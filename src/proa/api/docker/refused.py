"""What Docker's API has and this engine has not, refused in one clear line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.answer import Answer, json_reply
from proa.api.request import Request
from proa.api.routes import Handler
from proa.errors import Unsupported

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def refusal(what: str, hint: str = "") -> Handler:
    """A handler that says that `what` is not supported yet."""

    def handler(engine: Engine, request: Request) -> Answer:
        raise Unsupported(f"{what} is not supported yet", hint=hint)

    return handler


def no_swarm(engine: Engine, request: Request) -> Answer:
    """Everything about swarms: there is none, in the words and status of dockerd."""
    return json_reply({"message": "This node is not a swarm manager."}, 503)
