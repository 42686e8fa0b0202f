"""What the engine prepares while an answer is awaited: shown only when the answer takes long."""

from __future__ import annotations

import select
import sys
import time

from proa.cli import session
from proa.client.connection import Connection

FILTERS = {"type": ["daemon"], "event": ["progress"]}


def show(awaited: Connection, since_seconds: float) -> None:
    """Print progress from `since_seconds` ago on, until the awaited answer begins to arrive."""
    since = f"{time.time() - since_seconds:.3f}"
    events = session.stream("GET", "/events", {"since": since, "filters": FILTERS})
    lines = events.json_lines()
    with events.connection as told:
        poll = select.poll()
        poll.register(awaited.socket, select.POLLIN)
        poll.register(told.socket, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if awaited.socket.fileno() in ready:
                return
            event = next(lines, None)
            if event is None:
                return
            sys.stderr.write(f"proa: {event['Actor']['Attributes']['message']}\n")
