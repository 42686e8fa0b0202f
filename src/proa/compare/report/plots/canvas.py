"""What all plots are made of.

Across, everything is placed in percent, so that a plot fits any width with its text as large as
the page's; downward in pixels.
"""

from __future__ import annotations

from proa.compare.report.looks import Look
from proa.compare.report.markup import Child, Markup, join, tag
from proa.compare.report.scales import Axis
from proa.compare.report.words import amount

# By slot of a look: a disc, a diamond, a square, triangles, a star; about 12 pixels wide.
_SHAPES = (
    "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0Z",
    "M0-7L7 0 0 7-7 0Z",
    "M-5-5H5V5H-5Z",
    "M0-6.5L6.5 5H-6.5Z",
    "M0 6.5L6.5-5H-6.5Z",
    "M0-7L2-2 7-2 3 1.5 4.5 7 0 4-4.5 7-3 1.5-7-2-2-2Z",
)
_LETTER = 2.3  # percent of a phone's width that a letter of a tick takes
TICK_ROOM = 22  # below the lowest lane, for the axis' figures


def drawing(name: str, title: str, desc: str, height: int, *body: Child) -> Markup:
    """A plot of any width; `name` is its id, `title` and `desc` what it shows, in words."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", desc, id=f"{name}-desc"),
        *body,
        class_="plot", role="img", height=height, width="100%",
        aria_labelledby=f"{name}-title", aria_describedby=f"{name}-desc",
    )  # fmt: skip


def percent(value: float) -> str:
    """A coordinate."""
    return f"{value:.2f}%"


def text(words: Child, x: float, y: float, *, class_: str = "", anchor: str = "") -> Markup:
    """Words at a place; `anchor` is `end` or `middle` when they do not begin there."""
    return tag("text", words, x=percent(x), y=y, class_=class_ or None, text_anchor=anchor or None)


def shape(look: Look, x: float, y: float, tip: str = "") -> Markup:
    """A form's mark."""
    outline = tag("path", tag("title", tip) if tip else None, d=_SHAPES[look.slot])
    return tag("svg", outline, class_=f"mark f{look.slot}", x=percent(x), y=y, overflow="visible")


def key(look: Look) -> Markup:
    """A form's mark beside its name, outside plots."""
    outline = tag("path", d=_SHAPES[look.slot])
    return tag(
        "svg", outline, class_=f"key f{look.slot}", viewBox="-8 -8 16 16", aria_hidden="true"
    )


def short(words: str, limit: int = 24) -> str:
    """Words that fit beside a figure, on a phone."""
    return words if len(words) <= limit else words[: limit - 1].rstrip() + "…"


def grid(axis: Axis, unit: str, top: float, bottom: float) -> Markup:
    """Lines at an axis' ticks, with their values below where there is room on a phone."""
    pieces = []
    free = -1.0
    for tick in axis.ticks():
        x = axis.at(tick)
        words = short(amount(tick, unit), 12)
        width = len(words) * _LETTER
        anchor, left = _anchored(x, width)
        pieces.append(tag("line", x1=percent(x), x2=percent(x), y1=top, y2=bottom, class_="grid"))
        if left > free:
            pieces.append(text(words, x, bottom + 15, class_="tick", anchor=anchor))
            free = left + width + 1.5
    return join(pieces)


def _anchored(x: float, width: float) -> tuple[str, float]:
    """How words at a place are kept within the plot, and where they begin."""
    if x < width / 2:
        return "start", x
    return ("end", x - width) if x + width / 2 > 100 else ("middle", x - width / 2)


def lane_label(look: Look, y: float, figure: str, note: str = "") -> Markup:
    """A form's name at the left of its lane, its figure at the right."""
    name = tag("text", short(look.title), x=17, y=y, class_="lane")
    mark = tag("svg", tag("path", d=_SHAPES[look.slot]), class_=f"mark small f{look.slot}",
               x=6, y=y - 4, overflow="visible")  # fmt: skip
    words = (tag("tspan", figure, class_="figure"), f" {note}" if note else None)
    return join(mark, name, text(words, 100, y, class_="lane", anchor="end"))
