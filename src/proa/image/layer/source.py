"""What can be read from, and how far it may unfold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

CHUNK = 1 << 20


class Source(Protocol):
    """What can be read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


@dataclass(frozen=True)
class Bounds:
    """How far a compressed stream may unfold: `slack_bytes` plus `ratio` times what was read.

    Real layers stay below 10; a gzip bomb reaches 1000.
    """

    slack_bytes: int = 1 << 30
    ratio: int = 250


STANDARD_BOUNDS = Bounds()
