"""How well forms do compared with the first, or with before: ratios of medians, with intervals.

Drawn so that better is always to the right: a ratio of times is turned over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proa.compare.record import Change, Difference, Measure
from proa.compare.report.looks import Look
from proa.compare.report.markup import Attributes, Markup, join, tag
from proa.compare.report.plots import canvas
from proa.compare.report.scales import Axis
from proa.compare.report.words import CROSS, UNTESTED, number, titled, verdict, versus

ROW, MARK_ROOM = 44, 18
_AT = 29


@dataclass(frozen=True)
class Ratio:
    """A form's, against the first form, above one when it does better."""

    look: Look
    value: float
    low: float
    high: float
    told: bool
    words: str


Row = tuple[str, list[Ratio]]


def ratio(look: Look, better: str, found: Difference | Change, words: str) -> Ratio | None:
    """A difference as a ratio of how well they do; None where that has no sense."""
    value, low, high = found.ratio, found.low, found.high
    if better == "lower":
        value, low, high = (1 / each if each else float("inf") for each in (value, high, low))
    if not better or not 0 < low <= high < float("inf"):
        return None
    return Ratio(look, value, low, high, found.verdict not in UNTESTED, words)


def rows(measures: Sequence[Measure], looks: Mapping[str, Look]) -> list[Row]:
    """The measures of which a comparison with the first form can be drawn."""
    first = next(iter(looks), "")
    found = []
    for measure in measures:
        pairs = ((looks[key], versus(measure, key, first)) for key in looks if key != first)
        made = [ratio(look, measure.better, tested, verdict(measure, tested))
                for look, tested in pairs if tested]  # fmt: skip
        ratios = [each for each in made if each]
        if ratios:
            found.append((titled(measure.title), ratios))
    return found


def draw(name: str, title: str, equal: str, shown: Sequence[Row]) -> Markup | None:
    """The plot; `equal` is written at a ratio of one.  None when there is nothing to compare."""
    if not shown:
        return None
    ends = [end for _, ratios in shown for each in ratios for end in (each.low, each.high)]
    scale = Axis(min(*ends, 0.8) / 1.15, max(*ends, 1.25) * 1.15, True)
    tops = []
    top = 20
    for _, ratios in shown:
        tops.append(top)
        top += ROW + MARK_ROOM * (len(ratios) - 1)
    body = [_ground(scale, top, equal)]
    body += [_row(*row, at, scale) for row, at in zip(shown, tops, strict=True)]
    told = " ".join(
        f"{what}: {'; '.join(f'{r.look.title} {r.words}' for r in ratios)}."
        for what, ratios in shown
    )
    return canvas.drawing(name, title, told, top + canvas.TICK_ROOM, *body)


def _ground(scale: Axis, bottom: float, equal: str) -> Markup:
    one = scale.at(1.0)
    pieces = []
    for tick in sorted({*scale.ticks(), 1.0}):
        x = scale.at(tick)
        if tick != 1.0 and abs(x - one) < 10:
            continue
        anchor = "start" if x < 6 else "end" if x > 94 else "middle"
        line: Attributes = {
            "x1": canvas.percent(x),
            "x2": canvas.percent(x),
            "y1": 20,
            "y2": bottom,
        }
        pieces.append(tag("line", **line, class_="equal" if tick == 1.0 else "grid"))
        pieces.append(canvas.text(f"{number(tick)}{CROSS}", x, bottom + 15, class_="tick",
                                  anchor=anchor))  # fmt: skip
    anchor = "start" if one < 20 else "end" if one > 80 else "middle"
    pieces.append(canvas.text(equal, one, 11, class_="tick strong",
                              anchor=anchor))  # fmt: skip
    return join(pieces)


def _row(what: str, ratios: list[Ratio], top: float, scale: Axis) -> Markup:
    pieces = [canvas.text(canvas.short(what, 30), 0, top + 15, class_="lane")]
    for position, each in enumerate(ratios):
        y = top + _AT + position * MARK_ROOM
        faint = "" if each.told else " untold"
        pieces.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="rule"))
        pieces.append(
            tag("line", x1=canvas.percent(scale.at(each.low)), y1=y, y2=y,
                x2=canvas.percent(scale.at(each.high)), class_=f"within f{each.look.slot}{faint}")
        )  # fmt: skip
        tip = f"{what}: {each.look.title} {each.words}"
        mark = canvas.shape(each.look, scale.at(each.value), y, tip)
        pieces.append(tag("g", mark, class_=faint.strip() or None))
    if len(ratios) == 1:
        pieces.append(canvas.text(ratios[0].words.split(" (")[0], 100, top + 15,
                                  class_="lane quiet", anchor="end"))  # fmt: skip
    return join(pieces)
