"""What long work on images says of itself while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One line of progress, in the words of Docker's progress messages.

    `id` is the layer's short digest (12 hex digits), or a tag, or empty for a line of its own;
    `current` and `total` are bytes, 0 when unknown.
    """

    status: str
    id: str = ""
    current: int = 0
    total: int = 0


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """For those who do not want to know."""
