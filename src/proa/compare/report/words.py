"""Figures in words: amounts with fitting units, intervals, and what may be said of a difference.

Words of comparison (`faster`, `more`) come from a difference's verdict alone, so that nothing is
said that was not tested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from proa.compare.record import Difference, Interval, Measure
from proa.printable import clean

UNTESTED = ("no difference", "too few samples")
DASH = "\u2013"  # between the ends of an interval
CROSS = "\u00d7"  # after a factor
_UNIT_LETTERS = 16
_OPPOSITE = {"lower": "higher", "higher": "lower"}
_THOUSANDS = ("", "k", "M", "G", "T", "P")
# Words for the better and for the worse of two, when lower is better.
_TIMES = ("faster", "slower")
_AMOUNTS = ("less", "more")


@dataclass(frozen=True)
class Scale:
    """A unit people read: values are divided by `factor` and followed by `unit`."""

    factor: float
    unit: str


def scale(value: float, unit: str) -> Scale:
    """The unit in which a value has one to three digits before its point."""
    size = abs(value)
    if unit == "ms":
        return _time(size)
    base = unit.removesuffix("/s")
    rate = unit[len(base) :]
    if base not in {"bytes", "count"} and not rate:
        return Scale(1, clean(unit, _UNIT_LETTERS))
    prefix, factor = "", 1.0
    while size >= 999.5 and prefix != _THOUSANDS[-1]:
        factor, size = factor * 1000, size / 1000
        prefix = _THOUSANDS[_THOUSANDS.index(prefix) + 1]
    if base == "bytes":
        return Scale(factor, f"{prefix}B{rate}")
    if base == "count" and not rate:
        return Scale(1, "")
    return Scale(factor, f"{prefix} {clean(base, _UNIT_LETTERS)}{rate}".strip())


def _time(size: float) -> Scale:
    if size >= 999.5:
        return Scale(1000, "s")
    return Scale(0.001, "µs") if 0 < size < 0.0995 else Scale(1, "ms")


def number(value: float) -> str:
    """Two or three digits."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}".removesuffix(".0")
    if size >= 0.995:
        return f"{value:.2f}".removesuffix("0").removesuffix(".0")
    return f"{value:.2g}"


def amount(value: float, unit: str) -> str:
    """A value with its unit, as `35.4 MB`."""
    fitting = scale(value, unit)
    return f"{number(value / fitting.factor)} {fitting.unit}".strip()


def spread(interval: Interval, unit: str) -> str:
    """Where the median lies, in the unit the median is shown in, as `23.1-25.0`; maybe empty."""
    if interval.count < 2 or interval.low == interval.high:
        return ""
    fitting = scale(interval.median, unit)
    return f"{number(interval.low / fitting.factor)}{DASH}{number(interval.high / fitting.factor)}"


def estimate(interval: Interval, unit: str) -> str:
    """A median and its interval, as `197 ms (190-208)`."""
    within = spread(interval, unit)
    return amount(interval.median, unit) + (f" ({within})" if within else "")


def versus(measure: Measure, form: str, other: str) -> Difference | None:
    """How a form differs from another, whichever of both the test was of."""
    for found in measure.differences:
        if (found.form, found.other) == (form, other):
            return found
        if (found.form, found.other) == (other, form):
            return turned(found)
    return None


def turned(difference: Difference) -> Difference:
    """The same difference, told from the other side."""
    return replace(
        difference,
        form=difference.other,
        other=difference.form,
        ratio=_inverse(difference.ratio),
        low=_inverse(difference.high),
        high=_inverse(difference.low),
        verdict=_OPPOSITE.get(difference.verdict, difference.verdict),
    )


def _inverse(ratio: float) -> float:
    return 1 / ratio if ratio else float("inf")


def differs(difference: Difference | None) -> bool:
    """Whether the test found a difference."""
    return difference is not None and difference.verdict not in UNTESTED


def comparative(unit: str, better: str, verdict: str) -> str:
    """The word for a value that is `lower` or `higher`: faster, slower, less or more."""
    if unit == "ms":
        return _TIMES[verdict == "higher"]
    if unit.endswith("/s") and better == "higher":
        return _TIMES[verdict == "lower"]
    return _AMOUNTS[verdict == "higher"]


def times(ratio: float, like: float | None = None) -> str:
    """A factor of at least one, as `8.1`, `62` or `1.04`; in as many digits as `like` has."""
    if ratio == float("inf"):
        return "∞"
    size = ratio if like is None else like
    digits = 0 if size >= 20 else 1 if size >= 1.25 else 2
    return f"{ratio:,.{digits}f}"


def factor(difference: Difference) -> tuple[str, str]:
    """How many times, and its interval: the ratio or its inverse, whichever is above one."""
    return _factor(difference.ratio, difference.low, difference.high)


def _factor(ratio: float, low: float, high: float) -> tuple[str, str]:
    if ratio < 1:
        ratio, low, high = _inverse(ratio), _inverse(high), _inverse(low)
    shown, low_shown, high_shown = times(ratio), times(low, ratio), times(high, ratio)
    return shown, f"{low_shown}{DASH}{high_shown}" if low_shown != high_shown else ""


def told_factor(ratio: float, low: float, high: float, word: str) -> str:
    """A factor with its word and interval, as `8.1x slower (7.6-8.9)`."""
    if not ratio or ratio == float("inf"):  # against nothing at all there is no factor
        return word
    shown, within = _factor(ratio, low, high)
    return f"{shown}{CROSS} {word}" + (f" ({within})" if within else "")


def verdict(measure: Measure, difference: Difference | None) -> str:
    """What may be said of a form against another: a factor in words, or that nothing was found."""
    if difference is None:
        return ""
    if difference.verdict in UNTESTED:
        return difference.verdict
    word = comparative(measure.unit, measure.better, difference.verdict)
    return told_factor(difference.ratio, difference.low, difference.high, word)


def is_better(measure: Measure, difference: Difference | None) -> bool | None:
    """Whether the form does better than the other; None when that was not found or has no sense."""
    if difference is None or difference.verdict in UNTESTED or not measure.better:
        return None
    return difference.verdict == measure.better


def titled(text: str) -> str:
    """Words as they begin a line."""
    return text[:1].upper() + text[1:]


def counted(number_of: int, one: str, many: str = "") -> str:
    """`1 round`, `12 rounds`."""
    return f"{number_of:,} {one if number_of == 1 else many or one + 's'}"
