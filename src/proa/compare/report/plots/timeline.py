"""A start, read downward: when each form reached each milestone, all from the request on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from proa.compare.record import Moment
from proa.compare.report.looks import Look
from proa.compare.report.markup import Markup, join, tag
from proa.compare.report.plots import canvas
from proa.compare.report.scales import Axis, axis
from proa.compare.report.words import amount, titled

ROW = 46
_AT = 28  # from a row's top to its marks


def milestones(timelines: Mapping[str, Sequence[Moment]]) -> list[str]:
    """The milestones of all forms, in the order in which they are reached."""
    first: dict[str, float] = {}
    for moments in timelines.values():
        for moment in moments:
            first[moment.milestone] = min(moment.ms, first.get(moment.milestone, moment.ms))
    return sorted(first, key=lambda name: first[name])


def draw(
    name: str, timelines: Mapping[str, Sequence[Moment]], looks: Mapping[str, Look]
) -> Markup | None:
    """The plot; None without a milestone."""
    known = {key: timelines[key] for key in looks if timelines.get(key)}
    rows = milestones(known)
    if not rows:
        return None
    scale = axis([m.ms for moments in known.values() for m in moments if m.ms > 0], zero=True)
    height = ROW * len(rows)
    places = {row: number * ROW for number, row in enumerate(rows)}
    body = [canvas.grid(scale, "ms", 0, height)]
    body += [tag("line", x1="0%", x2="100%", y1=top + _AT, y2=top + _AT, class_="rule")
             for top in places.values()]  # fmt: skip
    body += [_path(looks[key], known[key], places, scale) for key in reversed(known)]
    body += [_words(row, top, known, looks) for row, top in places.items()]
    told = " ".join(_told(looks[key], moments) for key, moments in known.items())
    kind = "logarithmic" if scale.log else "linear"
    desc = f"{told} The axis is {kind}."
    return canvas.drawing(name, "A start, milestone by milestone", desc,
                          height + canvas.TICK_ROOM, *body)  # fmt: skip


def _words(
    row: str, top: float, known: Mapping[str, Sequence[Moment]], looks: Mapping[str, Look]
) -> Markup:
    figures: list[Markup] = []
    for key, moments in known.items():
        found = next((moment for moment in moments if moment.milestone == row), None)
        if found:
            glyph = tag("tspan", looks[key].glyph + " ", class_=f"f{looks[key].slot} glyph",
                        dx=9 if figures else None)  # fmt: skip
            figures.append(join(glyph, amount(found.ms, "ms")))
    return join(
        canvas.text(titled(canvas.short(row, 20)), 0, top + 13, class_="lane"),
        canvas.text(figures, 100, top + 13, class_="lane quiet", anchor="end"),
    )


def _path(
    look: Look, moments: Sequence[Moment], places: Mapping[str, float], scale: Axis
) -> Markup:
    points = sorted(
        ((places[m.milestone] + _AT, scale.at(m.ms), m) for m in moments),
        key=lambda point: point[0],
    )
    lines = [
        tag("line", x1=canvas.percent(x1), y1=y1, x2=canvas.percent(x2), y2=y2,
            class_=f"path f{look.slot}")
        for (y1, x1, _), (y2, x2, _) in pairwise(points)
    ]  # fmt: skip
    marks = [
        canvas.shape(look, x, y, f"{look.title}: {m.milestone} after {amount(m.ms, 'ms')}")
        for y, x, m in points
    ]
    return join(lines, marks)


def _told(look: Look, moments: Sequence[Moment]) -> str:
    steps = ", ".join(f"{m.milestone} after {amount(m.ms, 'ms')}" for m in moments)
    return f"{look.title}: {steps}."
