"""`/containers/{id}/attach`: the socket itself goes to the engine and on to the monitor."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from proa.api.answer import Answer
from proa.api.docker import lookup
from proa.api.docker.containers import RAW_STREAM, stream_kind
from proa.api.docker.framing import STDOUT, frame
from proa.api.errors import message_of
from proa.api.request import Request
from proa.engine.options import AttachOptions
from proa.errors import Conflict, Invalid, ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.engine.instance import Instance

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROLS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def attach(engine: Engine, request: Request) -> Answer:
    """POST /containers/{id}/attach."""
    found = lookup.instance(engine, request)
    keys = request.text("detachKeys") or (DEFAULT_DETACH_KEYS if found.tty else "")
    options = AttachOptions(
        stdin=request.flag("stdin"),
        stdout=request.flag("stdout"),
        stderr=request.flag("stderr"),
        logs=request.flag("logs"),
        stream=request.flag("stream"),
        detach_keys=detach_keys(keys),
    )
    if found.state == "paused":
        raise Conflict(
            f"container {request.parameter} is paused, unpause the container before attach"
        )
    with _held(found, options):
        sock = request.upgrade(RAW_STREAM if found.tty else stream_kind(request))
        entrust(sock, lambda: engine.attach(found.id, sock, options), framed=not found.tty)
    return None


def _held(found: Instance, options: AttachOptions) -> AbstractContextManager[object]:
    """A client may start the instance as soon as it sees our answer: it is joined before that."""
    waits = options.stream and not options.logs and not found.live
    return found.lock if waits else contextlib.nullcontext()


def entrust(sock: socket.socket, give: Callable[[], object], *, framed: bool) -> None:
    """Give an upgraded socket away; when that fails, say so in the stream and close it."""
    try:
        give()
    except BaseException as error:
        known = isinstance(error, ProaError)
        text = message_of(error) if isinstance(error, ProaError) else "internal error"
        line = f"{text}\r\n".encode()
        with contextlib.suppress(OSError):
            sock.sendall(frame(STDOUT, line) if framed else line)
        sock.close()
        if not known:
            raise


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as bytes."""
    return bytes(_key(name) for name in text.split(",")) if text else b""


def _key(name: str) -> int:
    if len(name) == 1 and name.isascii():
        return ord(name)
    letter = name.removeprefix("ctrl-")
    if letter != name and len(letter) == 1:
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if "a" <= letter <= "z":
            return ord(letter) - ord("a") + 1
    raise Invalid(f"invalid detach keys '{name}'", hint="use one character or ctrl-LETTER")
