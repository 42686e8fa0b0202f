"""From the answers of all forms to lines, scores and what is shared.  Pure.

A line's score is between 0 (open) and 1 (closed), an axis' the mean of its lines by weight, the
total the mean of the axes by `AXIS_WEIGHTS`; times 100.  What was not tried counts 0: only what was
shown to be closed is.
"""

from __future__ import annotations

from collections.abc import Mapping

from proa.compare.isolation import inquiries, shares
from proa.compare.isolation.inquiries import Inquiry
from proa.compare.record import AXES, Answer, Isolation, Line, Shared

AXIS_WEIGHTS: Mapping[str, float] = {
    "host kernel": 30,
    "devices": 10,
    "privileges": 15,
    "sight": 15,
    "exhaustion": 10,
    "escapes": 20,
}
NOTHING = Answer("not tried", "not asked", 0.0)
Found = Mapping[str, Mapping[str, Answer]]  # by form, by key


def judge(found: Found) -> Isolation:
    """Lines, scores by form and axis with `total`, and the table of what is shared."""
    lines = tuple(_line(inquiry, found) for inquiry in inquiries.ALL)
    return Isolation(lines, {form: scores(lines, form) for form in found}, _shared(found))


def scores(lines: tuple[Line, ...], form: str) -> dict[str, float]:
    """0 to 100 by axis, and `total`."""
    by_axis = {
        axis: 100 * sum(value(line.answers[form]) * line.weight for line in lines
                        if line.axis == axis)
        for axis in AXES
    }  # fmt: skip
    whole = sum(AXIS_WEIGHTS.values())
    total = sum(by_axis[axis] * weight for axis, weight in AXIS_WEIGHTS.items()) / whole
    return {axis: round(points, 1) for axis, points in (*by_axis.items(), ("total", total))}


def value(answer: Answer) -> float:
    """What an answer is worth; one that was not tried nothing."""
    return 0.0 if answer.outcome == "not tried" else answer.score


def _line(inquiry: Inquiry, found: Found) -> Line:
    whole = sum(other.weight for other in inquiries.ALL if other.axis == inquiry.axis)
    return Line(
        key=inquiry.key,
        axis=inquiry.axis,
        title=inquiry.title,
        how=inquiry.how,
        weight=round(inquiry.weight / whole, 6),
        answers={form: answers.get(inquiry.key, NOTHING) for form, answers in found.items()},
    )


def _shared(found: Found) -> tuple[Shared, ...]:
    rows = []
    for row in shares.ROWS:
        said = {
            form: (shares.SAID[answer.outcome], answer.evidence)
            for form, answers in found.items()
            if (answer := answers.get(shares.PREFIX + row.name, NOTHING)).outcome in shares.SAID
        }
        rows.append(Shared(row.what, row.how, said))
    return tuple(rows)
