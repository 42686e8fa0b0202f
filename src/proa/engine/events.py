"""Events: what happened to which object, kept for a while and streamed to whoever listens."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

KEPT = 4096
TICK_SECONDS = 5.0


class Events:
    """A bounded history with any number of readers."""

    def __init__(self) -> None:
        self._history: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self._number = 0
        self._changed = threading.Condition()

    def emit(self, kind: str, action: str, id: str, attributes: dict[str, str]) -> None:
        """Record an event in Docker's shape."""
        now = time.time_ns()
        event = {
            "Type": kind, "Action": action, "Actor": {"ID": id, "Attributes": attributes},
            "scope": "local", "time": now // 1_000_000_000, "timeNano": now,
        }  # fmt: skip
        with self._changed:
            self._number += 1
            self._history.append((self._number, event))
            self._changed.notify_all()

    def stream(
        self, since: float | None = None, until: float | None = None
    ) -> Iterator[dict[str, Any] | None]:
        """Events from `since` (seconds; None: only new ones) to `until`; None is a tick.

        Subscribes now, not at the first item.
        """
        with self._changed:
            start = self._number if since is None else 0
        return self._follow(start, since or 0.0, until)

    def _follow(
        self, seen: int, since: float, until: float | None
    ) -> Iterator[dict[str, Any] | None]:
        while True:
            with self._changed:
                fresh = [(n, event) for n, event in self._history if n > seen]
                if not fresh and (until is None or time.time() < until):
                    left = TICK_SECONDS if until is None else min(TICK_SECONDS, until - time.time())
                    self._changed.wait(max(0.0, left))
                    fresh = [(n, event) for n, event in self._history if n > seen]
            for number, event in fresh:
                seen = number
                moment = event["timeNano"] / 1e9
                if until is not None and moment > until:
                    return
                if moment >= since:
                    yield event
            if not fresh:
                if until is not None and time.time() >= until:
                    return
                yield None
