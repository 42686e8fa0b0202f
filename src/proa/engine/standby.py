"""A place that nobody needs is stopped, and goes on the moment somebody does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from proa.errors import ProaError
from proa.isolation.base import Running

Value = TypeVar("Value")

log = logging.getLogger(__name__)


class Standby:
    """Whether one running place is stopped for want of work.  Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._needed_at = time.monotonic()
        self._read: dict[str, object] = {}
        self.dozing = False

    def needed(self, running: Running) -> None:
        """Somebody is about to use the place: it runs when this returns, and for a while."""
        with self._lock:
            self._needed_at = time.monotonic()
            if not self.dozing:
                return
            self.dozing = False
            try:
                running.resume()
            except ProaError as error:  # it is ending: whoever needed it will be told
                log.warning("a place did not go on: %s", error)

    def doze(self, running: Running, quiet_seconds: float) -> bool:
        """Stop the place unless it was needed in that time; whether it is stopped now."""
        with self._lock:
            if self.dozing or time.monotonic() - self._needed_at < quiet_seconds:
                return False
            running.pause()
            self.dozing = True
            return True

    def reading(self, running: Running, name: str, read: Callable[[], Value]) -> Value:
        """What `read` says of a running place; of a stopped one what it said last, if it did."""
        with self._lock:
            if not (self.dozing and name in self._read):
                if self.dozing:
                    self.needed(running)
                self._read[name] = read()
            return cast(Value, self._read[name])

    def begin(self) -> None:
        """Another place, another life."""
        with self._lock:
            self._needed_at, self.dozing = time.monotonic(), False
            self._read.clear()
