"""Measures on the page: a card with each one's distribution, and a table of all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proa.compare.record import Measure
from proa.compare.report.looks import Look
from proa.compare.report.markup import Child, Markup, join, tag
from proa.compare.report.plots import distributions
from proa.compare.report.plots.canvas import key
from proa.compare.report.sections import tables
from proa.compare.report.words import (
    DASH,
    UNTESTED,
    amount,
    estimate,
    spread,
    titled,
    verdict,
    versus,
)


def sampled(measure: Measure) -> bool:
    """Whether there is a distribution to draw."""
    return any(len(values) > 1 for values in measure.samples.values())


def cards(name: str, measures: Sequence[Measure], cast: Mapping[str, Look]) -> Markup | None:
    """The distributions of measures, each in a card."""
    found = [
        _card(f"{name}-{number}", measure, cast)
        for number, measure in enumerate(measures)
        if sampled(measure)
    ]
    return tag("div", found, class_="cards") if found else None


def _card(name: str, measure: Measure, cast: Mapping[str, Look]) -> Markup:
    plot = distributions.draw(name, measure, cast)
    how = titled(measure.how)
    how += "." if how and how[-1] not in ".!?" else ""
    how += " The axis is logarithmic." if distributions.scale_of(measure).log else ""
    if measure.overhead is not None:
        how += f" Measuring took {amount(measure.overhead, measure.unit)}."
    return tables.card(measure.title, plot, _verdicts(measure, cast), tag("p", how, class_="how"))


def _verdicts(measure: Measure, cast: Mapping[str, Look]) -> Markup | None:
    first = next(iter(cast), "")
    said = []
    for look in list(cast.values())[1:]:
        words = verdict(measure, versus(measure, look.key, first))
        if words:
            said.append(tag("li", key(look), " ", words))
    return tag("ul", said, class_="verdicts") if said else None


def folded(caption: str, measures: Sequence[Measure], cast: Mapping[str, Look]) -> Markup | None:
    """Every measure's figures of every form, as a table; None when there are none."""
    if not measures:
        return None
    first = next(iter(cast), "")
    head = ("Measure", "Form", "Median", "Interval", "Samples", "Found", "p")
    rows: list[Sequence[Child]] = []
    for measure in measures:
        for form, values in measure.samples.items():
            if form in cast:
                rows.append(_row(measure, cast[form], len(values), first))
    return tables.fold("All figures as a table", tables.table(caption, head, rows))


def _row(measure: Measure, look: Look, count: int, first: str) -> Sequence[Child]:
    interval = measure.intervals.get(look.key)
    found = versus(measure, look.key, first) if look.key != first else None
    return (
        measure.title,
        tables.named(look),
        amount(interval.median, measure.unit) if interval else DASH,
        spread(interval, measure.unit) or DASH if interval else DASH,
        str(count),
        verdict(measure, found) or DASH,
        f"{found.p:.2g}" if found else DASH,
    )


def _counted(measure: Measure, form: str, first: str) -> Markup:
    if form not in measure.intervals:
        return Markup(DASH)
    found = verdict(measure, versus(measure, form, first)) if form != first else ""
    note = tag("small", found) if found and found not in UNTESTED else None
    return join(estimate(measure.intervals[form], measure.unit), note)


def side_by_side(caption: str, measures: Sequence[Measure], cast: Mapping[str, Look]) -> Markup:
    """Measures in rows, forms in columns; for what is counted rather than sampled."""
    cast = {key: look for key, look in cast.items() if any(key in m.intervals for m in measures)}
    rows = [
        (
            tables.asked(measure.title, measure.how),
            *(_counted(measure, key, next(iter(cast))) for key in cast),
        )
        for measure in measures
    ]
    return tables.table(caption, ("Measure", *map(tables.brief, cast.values())), rows)
