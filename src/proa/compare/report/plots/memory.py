"""What one instance costs in memory, part by part: a bar for each form, on one scale.

Parts are told apart by lightness and letter, never by another colour: colours are the forms'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proa.compare.report.looks import Look
from proa.compare.report.markup import Attributes, Markup, join, tag
from proa.compare.report.plots import canvas
from proa.compare.report.scales import Axis
from proa.compare.report.words import amount
from proa.costs import Part

LANE = 62
_BAR = 26
_LETTER_FROM = 5.0  # percent of the width
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def ordered(parts: Sequence[Part]) -> list[tuple[str, Part]]:
    """Parts by size, each with its letter."""
    largest_first = sorted(parts, key=lambda part: -part.bytes)
    return [(LETTERS[n % len(LETTERS)], part) for n, part in enumerate(largest_first)]


def shade(position: int, count: int) -> float:
    """The opacity of a part: the largest is full, the rest fade, never so that letters drown."""
    if position == 0:
        return 1.0
    return round(0.45 - 0.29 * (position - 1) / max(count - 2, 1), 3)


def draw(
    name: str, title: str, parts: Mapping[str, Sequence[Part]], looks: Mapping[str, Look]
) -> Markup | None:
    """The bars of all forms; None when nothing is known."""
    lanes = [(look, ordered(parts[key])) for key, look in looks.items() if parts.get(key)]
    largest = max((_total(found) for _, found in lanes), default=0)
    if not largest:
        return None
    scale = Axis(0, largest, False)
    height = LANE * len(lanes)
    body: list[Markup] = []
    told = []
    for number, (look, found) in enumerate(lanes):
        top = number * LANE
        body.append(canvas.lane_label(look, top + 14, amount(_total(found), "bytes")))
        body.append(_bar(top + 24, look, found, scale))
        told.append(_told(look, found))
    return canvas.drawing(name, title, " ".join(told), height, *body)


def _total(parts: list[tuple[str, Part]]) -> int:
    return sum(part.bytes for _, part in parts)


def _bar(top: float, look: Look, parts: list[tuple[str, Part]], scale: Axis) -> Markup:
    pieces = []
    at = 0.0
    for position, (letter, part) in enumerate(parts):
        width = scale.at(part.bytes)
        box: Attributes = {"x": canvas.percent(at), "y": top, "height": _BAR}
        box["width"] = canvas.percent(width)
        opacity = shade(position, len(parts))
        tip = f"{letter}: {part.name}, {amount(part.bytes, 'bytes')}"
        tip += ", shared" if part.shared else ""
        pieces.append(tag("rect", tag("title", tip), **box, fill_opacity=opacity,
                          class_=f"part f{look.slot}{'' if width > 1 else ' thin'}"))  # fmt: skip
        if part.shared:
            pieces.append(tag("rect", **box, class_="hatch"))
        if width >= _LETTER_FROM:
            strong = "on-strong" if opacity == 1.0 and not part.shared else "on-weak"
            pieces.append(canvas.text(letter, at + width / 2, top + 17.5,
                                      class_=f"letter {strong}", anchor="middle"))  # fmt: skip
        at += width
    return join(pieces)


def _told(look: Look, parts: list[tuple[str, Part]]) -> str:
    shares = ", ".join(
        f"{part.name} {amount(part.bytes, 'bytes')}{' (shared)' if part.shared else ''}"
        for _, part in parts
    )
    return f"{look.title}: {amount(_total(parts), 'bytes')}, of it {shares}."
