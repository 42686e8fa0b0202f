"""Isolation on the page: scores by axis, the evidence behind them, and what is shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proa.compare.record import AXES, Answer, Line, Report
from proa.compare.report.looks import Look
from proa.compare.report.markup import Child, Markup, join, tag
from proa.compare.report.plots import radar
from proa.compare.report.sections import tables
from proa.compare.report.words import DASH, counted

_SIGNS = {"closed": "●", "partly": "◐", "open": "○", "not tried": DASH}
_SHARED = {"no": "closed", "partly": "partly", "yes": "open"}


def draw(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    """The section; None when nothing was probed."""
    found = report.isolation
    if not found.lines and not found.shared:
        return None
    asked = {key: look for key, look in cast.items()
             if any(key in line.answers for line in found.lines)}  # fmt: skip
    apart = [line for line in found.lines if differ(line)]
    alike = [line for line in found.lines if not differ(line)]
    plot = radar.draw("radar", found.scores, cast)
    lead = f"{counted(len(found.lines), 'probe')}, asked inside every form alike. "
    lead += "A score is made of evidence, not of a test: 100 is closed, 0 is open."
    scores = tag("div", tag("div", plot, class_="figure-box") if plot else None,
                 _scores(found.scores, cast), class_="radar-pair")  # fmt: skip
    return tables.section(
        "isolation", "Isolation", lead,
        tables.card("Scores by axis", scores, wide=True) if found.scores else None,
        _evidence("Where the forms differ", apart, asked) if len(asked) > 1 else None,
        _folded(alike if len(asked) > 1 else [*apart, *alike], asked),
        _shared(report, cast),
    )  # fmt: skip


def differ(line: Line) -> bool:
    """Whether the forms' answers have different outcomes or scores."""
    return len({(answer.outcome, answer.score) for answer in line.answers.values()}) > 1


def badge(kind: str, words: str) -> Markup:
    """An outcome, as a sign and a word."""
    class_ = f"badge {kind.replace(' ', '-')}" if kind in _SIGNS else "badge"
    sign = tag("span", _SIGNS.get(kind, DASH) + " ", aria_hidden="true")
    return tag("span", sign, words, class_=class_)


def _scores(scores: Mapping[str, Mapping[str, float]], cast: Mapping[str, Look]) -> Markup:
    known = {key: scores[key] for key in cast if key in scores}
    rows: list[Sequence[Child]] = [
        (axis, *(f"{found[axis]:.0f}" if axis in found else DASH for found in known.values()))
        for axis in (*AXES, "total")
        if any(axis in found for found in known.values())
    ]
    head = ("Axis", *(tables.brief(cast[key]) for key in known))
    return tables.table("Scores of 100", head, rows)


def _evidence(title: str, lines: Sequence[Line], asked: Mapping[str, Look]) -> Markup:
    if not lines:
        return tag("p", "No probe was answered differently.", class_="lead")
    return join(tag("h3", f"{title}: {counted(len(lines), 'line')}"), _lines(title, lines, asked))


def _folded(lines: Sequence[Line], asked: Mapping[str, Look]) -> Markup | None:
    if not lines:
        return None
    title = "Answered alike" if len(asked) > 1 else "Evidence"
    return tables.fold(f"{title}: {counted(len(lines), 'line')}", _lines(title, lines, asked),
                       unfolded=len(asked) < 2)  # fmt: skip


def _lines(caption: str, lines: Sequence[Line], asked: Mapping[str, Look]) -> Markup:
    rows = [
        (
            tables.asked(line.title, join(tag("b", line.axis), f" · {line.how}")),
            *(_answer(line.answers.get(key)) for key in asked),
        )
        for line in sorted(lines, key=_place)
    ]
    return tables.stacked(caption, ("Probe and how it asks", *tables.titles(asked)), rows)


def _place(line: Line) -> tuple[int, float]:
    return AXES.index(line.axis) if line.axis in AXES else len(AXES), -line.weight


def _answer(answer: Answer | None) -> Markup:
    if answer is None:
        return Markup(DASH)
    partial = 0 < answer.score < 1
    score = tag("span", f" {answer.score:.2g} of 1", class_="score") if partial else None
    return join(badge(answer.outcome, answer.outcome), score, tag("small", answer.evidence))


def _shared(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    rows = report.isolation.shared
    asked = {key: look for key, look in cast.items() if any(key in row.answers for row in rows)}
    if not rows or not asked:
        return None
    body = [
        (
            tables.asked(row.what, row.how),
            *(_share(row.answers.get(key)) for key in asked),
        )
        for row in rows
    ]
    title = "What is shared with the host"
    head = ("What, and how it was found", *tables.titles(asked))
    return join(tag("h3", title), tables.stacked(title, head, body))


def _share(found: tuple[str, str] | None) -> Markup:
    if found is None:
        return Markup(DASH)
    said, finding = found
    words = {"yes": "shared", "no": "its own", "partly": "partly shared"}.get(said, said)
    return join(badge(_SHARED.get(said, ""), words), tag("small", finding))
