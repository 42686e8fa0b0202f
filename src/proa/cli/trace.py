"""The milestones of one run as a table: the engine's and the command line's own, in one time."""

from __future__ import annotations

from proa.cli.format import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Mark = tuple[int, str, str]  # nanoseconds, who, what


def engine_marks(answer: Any) -> list[Mark]:
    """The milestones in the engine's answer; CLOCK_MONOTONIC, as ours."""
    return [(int(m["Nanoseconds"]), "engine", str(m["Milestone"])) for m in answer["Milestones"]]


def trace(answer: Any, own: list[tuple[str, int]]) -> str:
    """A row per milestone: milliseconds since the command started, and since the row before."""
    marks = sorted([*engine_marks(answer), *((ns, "command", name) for name, ns in own)])
    rows = []
    first = previous = marks[0][0] if marks else 0
    for moment, who, name in marks:
        rows.append([_milliseconds(moment - first), _milliseconds(moment - previous), who, name])
        previous = moment
    return table(["AT MS", "STEP MS", "WHO", "MILESTONE"], rows)


def _milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f}".rjust(8)
