"""How far a comparison is, and an honest guess of what is left: from what took how long so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Seconds a part takes after the rounds, by form, until it was seen; measured with a small image.
USUAL_SECONDS = {"idle": 2.5, "density": 4.0, "isolation": 9.0, "portability": 7.0}


@dataclass(frozen=True)
class Progress:
    """What is being done; `round` of `rounds` (0: none now, 0: not known yet), `left_seconds` None
    while nobody can know."""

    what: str
    round: int = 0
    rounds: int = 0
    left_seconds: float | None = None
    begins: bool = False  # the first thing of its round


Told = Callable[[Progress], None]


@dataclass
class Course:
    """The parts of one comparison in time."""

    told: Told
    parts: dict[str, float] = field(default_factory=dict)  # still to come → seconds
    rounds: int = 0
    round: int = 0
    _begun: float = 0.0
    _first: int = 1
    _told_round: int = 0

    def expect(self, parts: dict[str, int]) -> None:
        """Parts that come after the rounds, and for how many forms."""
        self.parts = {name: USUAL_SECONDS[name] * count for name, count in parts.items()}

    def begin_round(self, number: int) -> None:
        """Round `number`, from 1, begins now; the first one is not like the others."""
        if number <= 2:
            self._begun, self._first = time.monotonic(), number
        self.round = number

    def round_seconds(self) -> float:
        """What a round has taken on average, of those that count."""
        made = self.round - self._first
        return (time.monotonic() - self._begun) / made if made else 0.0

    def after_seconds(self) -> float:
        """What comes after the rounds."""
        return sum(self.parts.values())

    def end_rounds(self) -> None:
        """The rounds are over."""
        self.round = 0

    def part(self, name: str, what: str) -> None:
        """A part after the rounds begins; it is taken off what is left as it does."""
        self.say(what)
        self.parts.pop(name, None)

    def say(self, what: str) -> None:
        """Tell what is being done now."""
        begins, self._told_round = self.round != self._told_round, self.round
        self.told(Progress(what, self.round, self.rounds, self._left(), begins))

    def _left(self) -> float | None:
        if not self.round:
            return self.after_seconds() if self._begun else None
        if self.round <= 2 or not self.rounds:
            return None
        return (self.rounds - self.round + 1) * self.round_seconds() + self.after_seconds()
