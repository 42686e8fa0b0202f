"""`/proa/instances/{id}/screen`, `vnc`, `keys`, `click`: seeing and using a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.answer import Answer, Reply
from proa.api.docker import bodies, lookup
from proa.api.docker.attach import entrust
from proa.api.request import Request
from proa.engine.fields import Fields
from proa.engine.screen import DELAY_MS

if TYPE_CHECKING:
    from proa.engine.engine import Engine

RFB = "application/vnd.rfb"


def shot(engine: Engine, request: Request) -> Answer:
    """GET /proa/instances/{id}/screen: a picture, PNG."""
    found = lookup.instance(engine, request)
    return Reply(200, engine.screen(found.id), "image/png")


def vnc(engine: Engine, request: Request) -> Answer:
    """GET /proa/instances/{id}/vnc: the connection speaks RFB from then on, with QEMU itself."""
    found = lookup.instance(engine, request)
    engine.check_screen(found.id)
    sock = request.upgrade(RFB)
    entrust(sock, lambda: engine.join_screen(found.id, sock), framed=False)
    return None


def keys(engine: Engine, request: Request) -> Answer:
    """POST /proa/instances/{id}/keys: type `Words`, names of keys or text (with `Text` all)."""
    found, body = lookup.instance(engine, request), Fields(bodies.read(request))
    delay_ms = body.integer("DelayMilliseconds") if body.has("DelayMilliseconds") else DELAY_MS
    engine.press(found.id, body.strings("Words"), text=body.boolean("Text"), delay_ms=delay_ms)
    return Reply(204)


def click(engine: Engine, request: Request) -> Answer:
    """POST /proa/instances/{id}/click: at pixel `X`, `Y`, with `Button` (left, middle, right)."""
    found, body = lookup.instance(engine, request), Fields(bodies.read(request))
    button = body.text("Button") or "left"
    engine.click(found.id, body.integer("X"), body.integer("Y"), button)
    return Reply(204)
