"""Fuzz QEMU's answers: a machine in a stranger's hands says anything on its control channel."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from proa.isolation.vm.qmp import Qmp
from tests.fuzz.harness import Target, main

SECONDS = 0.2
FIRST = 1  # number of the first request, which is random in earnest
MESSAGES: tuple[dict[str, Any], ...] = (
    {"QMP": {"version": {}, "capabilities": []}},
    {"return": {}, "id": FIRST},
    {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}},
    {"return": {"status": "running", "singlestep": False}, "id": FIRST + 1},
    {"error": {"class": "GenericError", "desc": "no"}, "id": FIRST + 1},
    {"event": "RESUME", "data": {}},
)
LINES = tuple(json.dumps(message).encode() + b"\n" for message in MESSAGES)
WORDS = (
    *LINES, b"[" * 5000, b'{"a":' * 3000, b"null", b"true", b"-1", b"1e999", b"9" * 5000, b'"',
    b"\\ud800", b"\xff\xfe", b"\0", b"\n" * 500, b'"error":[]', b'"error":"x"', b'"error":null',
    b'"id":1', b'"id":[1]', b'"event":{}', b'"desc":{}',
)  # fmt: skip


def check(data: bytes) -> object:
    """Two requests, an event; every outcome is a value or a typed error, in time."""
    ours, theirs = socket.socketpair()
    client = Qmp(ours)
    client._last = FIRST - 1
    with theirs, contextlib.closing(client):
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        client.pipeline(("qmp_capabilities", {}))
        answer = client.execute("query-status", timeout_seconds=SECONDS)
        client.wait_event("RESUME", SECONDS)
        return type(answer).__name__


TARGET = Target("qmp", check, [b"".join(LINES), b"".join(LINES[:4]), LINES[0] + LINES[4]], WORDS)

if __name__ == "__main__":
    main(TARGET)
