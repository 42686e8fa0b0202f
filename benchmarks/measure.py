"""Interleaved rounds: every contestant of a row runs once per round, in rotating order."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

SETTLE_SECONDS = 0.2
SETTLE_WINDOWS = 25
CALM_SHARE = 0.15


@dataclass(frozen=True)
class Contestant:
    """One way of doing a row's job; `once` does it and raises when it failed.

    `prepare` runs and `rest_seconds` pass unmeasured before each sample: the latter for what is
    prepared in the background.
    """

    name: str
    once: Callable[[], object]
    rest_seconds: float = 0
    prepare: Callable[[], object] = lambda: None


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
    most_rounds: int = 1000  # of a row whose samples take long
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


def settle() -> None:
    """Wait until the machine has little to do: what a sample left running must not burden the next.

    Engines prepare things in the background, ours among them, some after a pause: so two calm
    windows in a row are asked for, for a while.
    """
    calm = 0
    for _ in range(SETTLE_WINDOWS):
        calm = calm + 1 if busy_share(SETTLE_SECONDS) < CALM_SHARE else 0
        if calm == 2:
            return


def busy_share(seconds: float) -> float:
    """The share of all processors' time that was used within that time."""
    before = _processor_times()
    time.sleep(seconds)
    idle, total = (
        after - earlier for after, earlier in zip(_processor_times(), before, strict=True)
    )
    return 1 - idle / total if total else 0.0


def _processor_times() -> tuple[int, int]:
    """Idle and total time of all processors since boot, in ticks (proc(5), /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        numbers = [int(word) for word in file.readline().split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)


def play(row: Row, rounds: int) -> None:
    """One unmeasured run of each, then the rounds; who fails drops out with its reason."""
    field_ = list(row.contestants)
    for contestant in list(field_):
        try:
            contestant.prepare()
            contestant.once()
        except Exception as error:
            row.absent[contestant.name] = str(error).strip().splitlines()[-1]
            field_.remove(contestant)
    for number in range(min(rounds, row.most_rounds)):
        turn = number % len(field_) if field_ else 0
        for contestant in field_[turn:] + field_[:turn]:
            contestant.prepare()
            time.sleep(contestant.rest_seconds)
            settle()
            began = time.perf_counter()
            contestant.once()
            elapsed = (time.perf_counter() - began) * 1000
            row.samples.setdefault(contestant.name, []).append(round(elapsed, 3))
