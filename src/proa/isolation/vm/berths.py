"""One hull made ahead: a place with its wires laid, in which no QEMU has been started.

Moving into a v1 cgroup waits for a grace period of the host's kernel, which no start needs to see.
Like every place that was never launched it ends by itself when its engine goes.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from proa.errors import ProaError
from proa.isolation.places import Places
from proa.isolation.vm import hull

PAUSE_SECONDS = 0.1  # left to the instance just started before the next is made

log = logging.getLogger(__name__)


class Berths:
    """Keeps one hull ready once `replenish` was called; one thread makes it."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._ready: hull.Hull | None = None
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, skeleton: Path) -> hull.Hull:
        """The hull that waits, else one made now."""
        with self._lock:
            found, self._ready = self._ready, None
        if found is not None and not found.place.agent.lost:
            return found
        if found is not None:
            found.end(self._places)
        return hull.make(self._places, skeleton)

    def replenish(self, skeleton: Path) -> None:
        """Make the next one in the background, when there is none."""
        with self._lock:
            if self._ready is not None or self._closing.is_set():
                return
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(skeleton,), name="berths", daemon=True
                )
                self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """End the one that waits, and wait for the one being made."""
        self._closing.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            found, self._ready = self._ready, None
        if found is not None:
            found.end(self._places)

    def _run(self, skeleton: Path) -> None:
        while self._wanted.wait():
            self._wanted.clear()  # before `closing` is read: `close` sets that first
            if self._closing.wait(PAUSE_SECONDS):
                return
            if self._ready is not None:
                continue
            try:
                made = hull.make(self._places, skeleton)
            except (ProaError, OSError) as error:
                log.warning("no spare place for a vm: %s", error)
                continue
            with self._lock:
                self._ready = made
