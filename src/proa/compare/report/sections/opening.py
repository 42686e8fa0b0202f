"""The top of the page: the verdict in a sentence, the forms, and the figures to remember."""

from __future__ import annotations

import re
from collections.abc import Mapping

from proa.compare.record import Form, Measure, Report
from proa.compare.report.headline import MEMORY, SIZE, START, pick, sentences, tally
from proa.compare.report.looks import Look
from proa.compare.report.markup import Child, Markup, join, tag
from proa.compare.report.plots.canvas import key, short
from proa.compare.report.words import amount, counted, titled, verdict, versus


def draw(report: Report, cast: Mapping[str, Look]) -> Markup:
    """Headline, forms and key figures."""
    first, *rest = sentences(report)
    return tag(
        "div",
        tag("p", tag("span", "Compared", class_="quiet"), " ", tag("code", report.subject.name),
            class_="subject"),
        tag("h1", told(first)),
        [tag("p", told(sentence), class_="also") for sentence in rest],
        tag("p", _meta(report), class_="meta"),
        _legend(report, cast),
        _tiles(report, cast),
        class_="opening",
    )  # fmt: skip


def told(sentence: str) -> Markup:
    """A sentence whose factors and intervals stay together, the intervals softer."""
    pieces = re.split(r"([\d.,∞]+ \([^()]*\) times)", sentence)
    return join(_factor(piece) if number % 2 else piece for number, piece in enumerate(pieces))


def _factor(words: str) -> Markup:
    shown, interval, rest = words.split(" ")
    return tag("span", shown, " ", tag("span", interval, class_="soft"), " ", rest, class_="nowrap")


def _meta(report: Report) -> str:
    when = report.made.replace("T", " ").replace("Z", " UTC")
    shown = [when, counted(report.rounds, "round"), f"{report.seconds:.0f} s"]
    shown.append(f"intervals hold {100 * report.confidence:.0f} % of the time")
    processor = report.machine.get("cpu model", "")
    return " · ".join([*shown, *([processor] if processor else [])])


def _legend(report: Report, cast: Mapping[str, Look]) -> Markup:
    items = [
        tag("li", key(cast[form.key]), tag("div", tag("strong", cast[form.key].title),
            tag("span", _details(form), class_="quiet")))
        for form in report.forms
    ]  # fmt: skip
    return tag("ul", items, class_="legend", aria_label="Forms")


def _details(form: Form) -> str:
    facts = [f"kernel {form.kernel}" if form.kernel else "", form.accelerator]
    facts.append(f"start: {form.start}" if form.start else "")
    facts.append("without work and isolation" if form.only_start else "")
    return ", ".join(fact for fact in facts if fact)


def _tiles(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    made = (
        _measure_tile("Start", pick(report.measures, START), cast),
        _measure_tile("Memory", pick(report.measures, MEMORY), cast),
        _measure_tile("Size", pick(report.measures, SIZE), cast),
        _work_tile(report, cast),
        _isolation_tile(report, cast),
    )
    found = [tile for tile in made if tile]
    heading = tag("h2", "Key figures", class_="unseen", id="key-head")
    tiles = tag("div", found, class_="tiles")
    return tag("section", heading, tiles, id="key", aria_labelledby="key-head") if found else None


def _tile(title: str, rows: list[Markup], *notes: Child) -> Markup | None:
    if not rows:
        return None
    body = tag("dl", rows)
    return tag("div", tag("h3", title), body, [tag("p", note) for note in notes if note],
               class_="tile")  # fmt: skip


def _entry(look: Look, figure: str) -> Markup:
    name = tag("dt", key(look), tag("span", short(look.noun, 26)))
    return tag("div", name, tag("dd", figure))


def _measure_tile(title: str, measure: Measure | None, cast: Mapping[str, Look]) -> Markup | None:
    if measure is None:
        return None
    rows = [
        _entry(look, amount(measure.intervals[form].median, measure.unit))
        for form, look in cast.items()
        if form in measure.intervals
    ]
    first = next(iter(cast))
    shown = [
        tag("span", key(look), " ", words.split(" (")[0], class_="named")
        for look in list(cast.values())[1:]
        if (words := verdict(measure, versus(measure, look.key, first)))
        and words != "too few samples"
    ]
    note = tag("span", [[each, " "] for each in shown], class_="found") if shown else None
    return _tile(title, rows, titled(short(measure.title, 60)), note)


def _work_tile(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    first, *others = cast.values()
    rows = []
    for other in others:
        better, worse, alike = tally(report.measures, other.key, first.key)
        if better + worse + alike:
            rows.append(_entry(other, f"{worse} of {better + worse + alike}"))
    note = f"measures of work in which it does worse than the {short(first.noun)}"
    return _tile("Work", rows, note)


def _isolation_tile(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    rows = [
        _entry(look, f"{report.isolation.scores[form]['total']:.0f}")
        for form, look in cast.items()
        if "total" in report.isolation.scores.get(form, {})
    ]
    probes = counted(len(report.isolation.lines), "probe")
    return _tile("Isolation", rows, f"of 100, by {probes} from inside; findings, not a test")
