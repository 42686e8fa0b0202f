"""Isolation by axis, 0 in the middle to 100 at the rim: one outline for each form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from proa.compare.record import AXES
from proa.compare.report.looks import Look
from proa.compare.report.markup import Markup, join, tag
from proa.compare.report.plots import canvas
from proa.compare.report.words import titled

WIDTH, HEIGHT = 350, 310
_CENTRE = (175.0, 155.0)
_RADIUS = 118.0
_RINGS = (25, 50, 75, 100)
Point = tuple[float, float]


def draw(
    name: str, scores: Mapping[str, Mapping[str, float]], looks: Mapping[str, Look]
) -> Markup | None:
    """The plot; None when fewer than three axes were scored."""
    known = {key: scores[key] for key in looks if key in scores}
    axes = [axis for axis in AXES if any(axis in found for found in known.values())]
    if len(axes) < 3:
        return None
    body = [_net(axes)]
    body += [_outline(looks[key], axes, known[key]) for key in known]
    told = " ".join(_told(looks[key], axes, known[key]) for key in known)
    return tag(
        "svg",
        tag("title", "Isolation by axis", id=f"{name}-title"),
        tag("desc", f"{told} 100 is closed, 0 is open.", id=f"{name}-desc"),
        *body,
        class_="plot radar", role="img", viewBox=f"0 0 {WIDTH} {HEIGHT}",
        aria_labelledby=f"{name}-title", aria_describedby=f"{name}-desc",
    )  # fmt: skip


def _point(position: int, count: int, score: float) -> Point:
    angle = 2 * math.pi * position / count - math.pi / 2
    reach = _RADIUS * max(0.0, min(score, 100.0)) / 100
    return _CENTRE[0] + reach * math.cos(angle), _CENTRE[1] + reach * math.sin(angle)


def _joined(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _net(axes: list[str]) -> Markup:
    count = len(axes)
    pieces = []
    for ring in _RINGS:
        corners = [_point(n, count, ring) for n in range(count)]
        pieces.append(tag("polygon", points=_joined(corners), class_="ring"))
        x, y = ((a + b) / 2 for a, b in zip(corners[0], corners[1], strict=True))
        pieces.append(tag("text", str(ring), x=x, y=y + 4, class_="tick", text_anchor="middle"))
    for number, axis in enumerate(axes):
        x, y = _point(number, count, 100)
        pieces.append(tag("line", x1=_CENTRE[0], y1=_CENTRE[1], x2=x, y2=y, class_="grid"))
        pieces.append(_axis_name(axis, x, y))
    return join(pieces)


def _axis_name(axis: str, x: float, y: float) -> Markup:
    across, down = x - _CENTRE[0], y - _CENTRE[1]
    anchor = "middle" if abs(across) < 1 else "start" if across > 0 else "end"
    shift = 0.0 if anchor == "middle" else math.copysign(8, across)
    lower = 18 if down > 60 else -9 if down < -60 else 4
    if anchor != "middle":  # long words beside the rim begin on it, above or below the corner
        shift, anchor = math.copysign(34, across), "middle"
        lower = 20 if down > 0 else -10
    return tag("text", titled(axis), x=x + shift, y=y + lower, class_="axis", text_anchor=anchor)


def _outline(look: Look, axes: list[str], found: Mapping[str, float]) -> Markup:
    points = [
        (axis, _point(n, len(axes), found[axis])) for n, axis in enumerate(axes) if axis in found
    ]
    area = tag("polygon", points=_joined([p for _, p in points]), class_=f"area f{look.slot}")
    marks = [_corner(look, x, y, f"{look.title}: {axis} {found[axis]:.0f} of 100")
             for axis, (x, y) in points]  # fmt: skip
    return join(area, marks)


def _corner(look: Look, x: float, y: float, tip: str) -> Markup:
    mark = canvas.shape(look, 0, 0, tip)
    return tag("g", mark, transform=f"translate({x:.1f} {y:.1f})")


def _told(look: Look, axes: list[str], found: Mapping[str, float]) -> str:
    each = ", ".join(f"{axis} {found[axis]:.0f}" for axis in axes if axis in found)
    total = f"{found['total']:.0f} in all: " if "total" in found else ""
    return f"{look.title}: {total}{each}."
