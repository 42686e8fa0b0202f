"""Where the bytes went: one bar for each part, the largest first, all forms on one scale."""

from __future__ import annotations

from collections.abc import Sequence

from proa.compare.report.looks import Look
from proa.compare.report.markup import Attributes, Markup, join, tag
from proa.compare.report.plots import canvas
from proa.compare.report.words import amount
from proa.costs import Part

ROW = 36
MOST = 12


def largest(parts: Sequence[Part], most: int = MOST) -> list[Part]:
    """The largest parts; what does not fit is summed in a last one."""
    ordered = sorted((part for part in parts if part.bytes > 0), key=lambda part: -part.bytes)
    if len(ordered) <= most:
        return ordered
    rest = ordered[most - 1 :]
    summed = Part(f"{len(rest)} smaller", sum(part.bytes for part in rest))
    return [*ordered[: most - 1], summed]


def draw(
    name: str, title: str, look: Look | None, parts: Sequence[Part], top: float
) -> Markup | None:
    """One ledger; bars are shares of `top` bytes.  None when it is empty."""
    shown = largest(parts)
    if not shown or top <= 0:
        return None
    body = [_row(n * ROW, part, look, 100 * part.bytes / top) for n, part in enumerate(shown)]
    told = "; ".join(f"{part.name} {amount(part.bytes, 'bytes')}"
                     f"{' (shared)' if part.shared else ''}" for part in shown)  # fmt: skip
    return canvas.drawing(name, title, told + ".", ROW * len(shown), *body)


def _row(top: float, part: Part, look: Look | None, width: float) -> Markup:
    slot = f"f{look.slot}" if look else "plain"
    box: Attributes = {"x": "0%", "y": top + 19, "height": 9}
    box["width"] = canvas.percent(max(width, 0.3))
    tip = f"{part.name}: {amount(part.bytes, 'bytes')}" + (", shared" if part.shared else "")
    return join(
        canvas.text(canvas.short(part.name, 28), 0, top + 13, class_="lane"),
        canvas.text(amount(part.bytes, "bytes"), 100, top + 13, class_="lane", anchor="end"),
        tag("rect", x="0%", y=top + 19, width="100%", height=9, rx=3, class_="trough"),
        tag("rect", tag("title", tip), **box, rx=3, class_=f"part {slot}"),
        tag("rect", **box, rx=3, class_="hatch") if part.shared else None,
    )
