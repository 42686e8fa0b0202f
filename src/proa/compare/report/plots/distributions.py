"""Where the samples of a measure lie: each one, their quartiles, the median and its interval."""

from __future__ import annotations

from collections.abc import Mapping

from proa.compare.record import Interval, Measure
from proa.compare.report.looks import Look
from proa.compare.report.markup import Markup, join, tag
from proa.compare.report.plots import canvas
from proa.compare.report.scales import Axis, axis
from proa.compare.report.words import amount, counted, estimate, spread, titled

LANE = 58
_STRIP = 37  # from a lane's top to the middle of its strip
_JITTER = (0, -5, 4, -2, 6, -6, 2, -4, 5, 1, -3, 3)
_QUARTILES_FROM = 4
_MOST_DOTS = 200


def draw(name: str, measure: Measure, looks: Mapping[str, Look]) -> Markup | None:
    """A measure's plot; None when there is no sample."""
    samples = measure.samples
    lanes = [(look, samples[key]) for key, look in looks.items() if samples.get(key)]
    if not lanes:
        return None
    scale = scale_of(measure)
    height = LANE * len(lanes)
    body = [canvas.grid(scale, measure.unit, 0, height)]
    told = []
    for number, (look, values) in enumerate(lanes):
        interval = measure.intervals.get(look.key)
        body.append(_lane(number * LANE, look, (measure.unit, values, interval), scale))
        told.append(_told(look, measure.unit, values, interval))
    kind = "logarithmic" if scale.log else "linear"
    desc = f"{' '.join(told)} The axis is {kind}."
    title = f"{titled(measure.title)}: samples by form"
    return canvas.drawing(name, title, desc, height + canvas.TICK_ROOM, *body)


def scale_of(measure: Measure) -> Axis:
    """The axis that holds all samples of a measure."""
    return axis([value for values in measure.samples.values() for value in values])


def quartiles(values: tuple[float, ...]) -> tuple[float, float, float]:
    """The values a quarter, half and three quarters of the samples lie below."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return at(0.25), at(0.5), at(0.75)


def _lane(
    top: int, look: Look, found: tuple[str, tuple[float, ...], Interval | None], scale: Axis
) -> Markup:
    unit, values, interval = found
    middle = top + _STRIP
    figure = amount(interval.median if interval else quartiles(values)[1], unit)
    within = spread(interval, unit) if interval else ""
    pieces = [canvas.lane_label(look, top + 14, figure, f"({within})" if within else "")]
    if len(values) >= _QUARTILES_FROM:
        pieces.append(_quartile_bar(values, look, middle, scale))
    for number, value in enumerate(values[:_MOST_DOTS]):
        jitter = _JITTER[number % len(_JITTER)] if len(values) > 1 else 0
        pieces.append(
            tag("circle", tag("title", amount(value, unit)), class_=f"dot f{look.slot}",
                cx=canvas.percent(scale.at(value)), cy=middle + jitter, r=3)
        )  # fmt: skip
    if interval:
        pieces.append(_median(interval, look, middle, scale))
    return join(pieces)


def _quartile_bar(values: tuple[float, ...], look: Look, middle: float, scale: Axis) -> Markup:
    low, _, high = (scale.at(value) for value in quartiles(values))
    return tag("rect", x=canvas.percent(low), width=canvas.percent(max(high - low, 0.4)), rx=4,
               y=middle - 11, height=22, class_=f"quartiles f{look.slot}")  # fmt: skip


def _median(interval: Interval, look: Look, middle: float, scale: Axis) -> Markup:
    low, high, median = (scale.at(v) for v in (interval.low, interval.high, interval.median))
    across = tag("line", x1=canvas.percent(low), x2=canvas.percent(high), y1=middle, y2=middle,
                 class_=f"within f{look.slot}")  # fmt: skip
    upright = tag("line", x1=canvas.percent(median), x2=canvas.percent(median), y1=middle - 11,
                  y2=middle + 11, class_=f"median f{look.slot}")  # fmt: skip
    return join(across if interval.count > 1 else None, upright)


def _told(look: Look, unit: str, values: tuple[float, ...], interval: Interval | None) -> str:
    middle = estimate(interval, unit) if interval else amount(quartiles(values)[1], unit)
    samples = counted(len(values), "sample")
    if len(values) == 1:
        return f"{look.title}: {middle}, {samples}."
    span = f"from {amount(min(values), unit)} to {amount(max(values), unit)}"
    return f"{look.title}: median {middle}, {samples} {span}."
