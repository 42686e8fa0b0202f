"""Interleaved rounds: every contestant of a row runs once per round, in rotating order."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Contestant:
    """One way of doing a row's job; `once` does it and raises when it failed.

    `rest_seconds` pass unmeasured before each sample: for what is prepared in the background.
    """

    name: str
    once: Callable[[], object]
    rest_seconds: float = 0


@dataclass(frozen=True)
class Budget:
    """`ours` must take at most `factor` of the fastest of `peers`."""

    ours: str
    peers: tuple[str, ...]
    factor: float


@dataclass
class Row:
    """One comparison; samples are milliseconds, or kilobytes for memory."""

    key: str
    title: str
    contestants: list[Contestant]
    budgets: list[Budget] = field(default_factory=list)
    unit: str = "ms"
    samples: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """What a list of samples says."""

    count: int
    minimum: float
    median: float
    low: float
    high: float


def summary(samples: list[float]) -> Summary:
    """Median with the 10th and 90th percentile as its spread."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    return Summary(
        len(ordered),
        ordered[0],
        statistics.median(ordered),
        ordered[round(last * 0.1)],
        ordered[round(last * 0.9)],
    )


def play(row: Row, rounds: int) -> None:
    """One unmeasured run of each, then the rounds; who fails drops out with its reason."""
    field_ = list(row.contestants)
    for contestant in list(field_):
        try:
            contestant.once()
        except Exception as error:
            row.absent[contestant.name] = str(error).strip().splitlines()[-1]
            field_.remove(contestant)
    for number in range(rounds):
        turn = number % len(field_) if field_ else 0
        for contestant in field_[turn:] + field_[:turn]:
            time.sleep(contestant.rest_seconds)
            began = time.perf_counter()
            contestant.once()
            elapsed = (time.perf_counter() - began) * 1000
            row.samples.setdefault(contestant.name, []).append(round(elapsed, 3))
