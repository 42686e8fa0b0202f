"""Axes: where a value lies between 0 and 100 %, and which values are marked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

LOG_FROM = 10.0  # the largest over the smallest, from which an axis is logarithmic
_LOG_TO = 1e12  # beyond it the smallest is as good as nothing
_STEPS = (1.0, 2.0, 5.0)
_FINE_STEPS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_LOG_STEPS = (_FINE_STEPS, _STEPS, (1.0, 3.0), (1.0,))


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, linear or logarithmic."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """A value's place, in percent of the axis, kept within it."""
        if math.isnan(value):
            return 0.0
        if self.log:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return 100 * min(max(share, 0.0), 1.0)

    def ticks(self, apart: float = 17.0) -> list[float]:
        """Round values within the axis, at least `apart` percent from each other."""
        return _log_ticks(self, apart - 3) if self.log else _linear_ticks(self, apart)


def axis(values: Iterable[float], *, zero: bool = False) -> Axis:
    """An axis that holds all values with some room; from 0 if asked and if it is linear."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Axis(0, 1, False)
    low, high = min(known), max(known)
    if low > 0 and LOG_FROM < high / low < _LOG_TO:
        room = (high / low) ** 0.04
        return Axis(low / room, high * room, True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    if zero or (low >= 0 and low < 0.35 * high):
        return Axis(min(0.0, low), high + room, False)
    return Axis(max(0.0, low - room) if low >= 0 else low - room, high + room, False)


def _linear_ticks(axis_: Axis, apart: float) -> list[float]:
    length = axis_.high - axis_.low
    least = length * apart / 100
    power = 10.0 ** math.floor(math.log10(least))
    step = next((power * s for s in (*_STEPS, 10.0) if power * s >= least), power * 10)
    first = math.ceil(axis_.low / step - 1e-9)
    return [n * step for n in range(first, math.floor(axis_.high / step + 1e-9) + 1)]


def _log_ticks(axis_: Axis, apart: float) -> list[float]:
    powers = range(math.floor(math.log10(axis_.low)), math.ceil(math.log10(axis_.high)) + 1)
    for steps in _LOG_STEPS:
        every = [step * 10.0**power for power in powers for step in steps]
        inside = [value for value in every if axis_.low <= value <= axis_.high]
        places = [axis_.at(value) for value in inside]
        if all(right - left >= apart for left, right in pairwise(places)):
            break
    return inside[:: 1 + len(inside) // 7]
