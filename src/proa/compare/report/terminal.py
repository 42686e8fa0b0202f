"""A comparison as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proa.compare.record import AXES, Line, Measure, Report
from proa.compare.report.headline import CONDITIONS, sentences, telling
from proa.compare.report.ink import Ink, fit
from proa.compare.report.looks import Look, looks
from proa.compare.report.progress import Progress
from proa.compare.report.sections.isolation import differ
from proa.compare.report.words import (
    DASH,
    UNTESTED,
    amount,
    counted,
    estimate,
    titled,
    verdict,
    versus,
)
from proa.printable import clean

__all__ = ["Progress", "render"]

_TITLES = {"size": "Size", "time": "Start", "cost": "Cost", "work": "Work"}
_FIRST, _LEAST = 20, 16  # what a first column has, and any other at least
_INDENT = 4
_EVIDENCE, _LEFT = 12, 8  # how many are shown here


def render(report: Report, width: int = 80, colour: bool = False) -> str:
    """The report in at most `width` columns (40 at least), ending in a line feed."""
    ink = Ink(max(width, 40), colour)
    cast = looks(report.forms)
    lines = [*_head(report, ink), *_forms(report, cast, ink)]
    for group, title in _TITLES.items():
        lines += _group(title, _chosen(report, group), cast, ink)
    lines += [*_isolation(report, cast, ink), *_kernels(report, cast, ink), *_end(report, ink)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _chosen(report: Report, group: str) -> list[Measure]:
    """A group's measures; of starts all that were warm, and of the others when it was there."""
    measures = [measure for measure in report.measures if measure.group == group]
    if group != "time":
        return measures
    last = telling(measures)
    return [m for m in measures if m in last or m.key.endswith(CONDITIONS[0])]


def _head(report: Report, ink: Ink) -> Iterator[str]:
    yield from (ink.bold(line) for line in ink.wrapped(report.subject.name))
    about = f"{report.subject.kind}, {report.subject.platform}"
    if report.subject.command:
        about += f": {' '.join(report.subject.command)}"
    yield from (ink.faint(line) for line in ink.wrapped(about)[:3])
    yield ""
    for number, sentence in enumerate(sentences(report)):
        for line in ink.wrapped(sentence):
            yield line if number else ink.bold(line)
    yield ""


def _forms(report: Report, cast: Mapping[str, Look], ink: Ink) -> Iterator[str]:
    wide = min(max((len(look.noun) for look in cast.values()), default=0), 24)
    for form in report.forms:
        look = cast[form.key]
        facts = [form.title, f"kernel {form.kernel}" if form.kernel else "", form.accelerator]
        facts.append(f"start: {form.start}" if form.start else "")
        facts.append("without work and isolation" if form.only_start else "")
        told = fit(", ".join(fact for fact in facts if fact), ink.width - wide - 6).rstrip()
        yield f"  {mark(look, ink)} {fit(look.noun, wide)}  {ink.faint(told)}"


def mark(look: Look, ink: Ink) -> str:
    """A form's sign."""
    return ink.form(look, look.glyph)


def _group(
    title: str, measures: list[Measure], cast: Mapping[str, Look], ink: Ink
) -> Iterator[str]:
    measures = [measure for measure in measures if any(measure.samples.values())]
    if not measures:
        return
    shown = {k: look for k, look in cast.items() if any(m.samples.get(k) for m in measures)}
    table = _Table.of(measures, shown, ink.width)
    yield ""
    if table.column * len(shown) + _INDENT > ink.width:
        yield ink.bold(title)
        for measure in measures:
            yield from _stacked(measure, shown, ink)
        return
    heads = (f"{mark(look, ink)} {fit(look.noun, table.column - 2)}" for look in shown.values())
    yield ink.bold(fit(title, table.first)) + "".join(heads)
    for measure in measures:
        yield from _row(measure, shown, table, ink)


@dataclass(frozen=True)
class _Table:
    """How wide its first column and the forms' are; titles that leave no room stand above."""

    first: int
    column: int

    @classmethod
    def of(cls, measures: list[Measure], shown: Mapping[str, Look], width: int) -> _Table:
        texts = [_figure(measure, key) for measure in measures for key in shown]
        texts += [_found(measure, key, next(iter(shown))) for measure in measures for key in shown]
        column = max(_LEAST, *(len(text) for text in texts)) + 2
        titles = max(len(clean(measure.title)) for measure in measures) + 4
        beside = titles + column * len(shown) <= width
        first = titles if beside else max(_INDENT, width - column * len(shown))
        return cls(first, column)


def _row(measure: Measure, shown: Mapping[str, Look], table: _Table, ink: Ink) -> Iterator[str]:
    figures = "".join(fit(_figure(measure, key), table.column) for key in shown)
    if len(clean(measure.title)) + 3 <= table.first:
        yield "  " + fit(titled(measure.title), table.first - 2) + figures
    else:
        yield "  " + fit(titled(measure.title), ink.width - 2)
        yield " " * table.first + figures
    yield from _once(measure, ink)
    base = next(iter(shown))
    found = ["", *(_found(measure, key, base) for key in list(shown)[1:])]
    if any(found):
        words = "".join(fit(each, table.column) for each in found)
        yield " " * table.first + ink.faint(words.rstrip())


def _once(measure: Measure, ink: Ink) -> Iterator[str]:
    """How a cost was come by that was not sampled: an extrapolation is called one."""
    if measure.group == "cost" and all(len(values) < 2 for values in measure.samples.values()):
        yield from (ink.faint(line) for line in ink.wrapped(measure.how, " " * _INDENT))


def _stacked(measure: Measure, shown: Mapping[str, Look], ink: Ink) -> Iterator[str]:
    yield "  " + fit(titled(measure.title), ink.width - 2)
    yield from _once(measure, ink)
    base = next(iter(shown))
    wide = min(max(len(look.noun) for look in shown.values()), 16)
    room = ink.width - wide - 8
    for key, look in shown.items():
        if not measure.samples.get(key):
            continue
        figure, found = _figure(measure, key), _found(measure, key, base) if key != base else ""
        name = f"    {mark(look, ink)} {fit(look.noun, wide)}  "
        if len(figure) + len(found) + 2 <= room:
            yield name + figure + (f"  {ink.faint(found)}" if found else "")
        else:
            yield name + fit(figure, room)
            if found:
                yield " " * (wide + 8) + ink.faint(fit(found, room).rstrip())


def _figure(measure: Measure, key: str) -> str:
    interval = measure.intervals.get(key)
    return estimate(interval, measure.unit) if interval else DASH


def _found(measure: Measure, key: str, base: str) -> str:
    """The verdict without its interval, which the page has; sizes are counted, so have none."""
    found = versus(measure, key, base)
    if found is None or all(len(values) < 2 for values in measure.samples.values()):
        return "" if found is None or found.verdict in UNTESTED else verdict(measure, found)
    return verdict(measure, found).split(" (")[0]


def _isolation(report: Report, cast: Mapping[str, Look], ink: Ink) -> Iterator[str]:
    scores = {k: report.isolation.scores[k] for k in cast if k in report.isolation.scores}
    if scores:
        column = min((ink.width - _FIRST) // len(scores), 18)
        heads = (mark(cast[key], ink) + " " + fit(cast[key].noun, column - 2) for key in scores)
        yield ""
        yield ink.bold(fit("Isolation, of 100", _FIRST)) + "".join(heads)
        for axis in (*AXES, "total"):
            figures = [f"{f[axis]:.0f}" if axis in f else DASH for f in scores.values()]
            yield "  " + fit(axis, _FIRST - 2) + "".join(fit(each, column) for each in figures)
    lines = report.isolation.lines
    apart = [line for line in lines if differ(line)]
    if apart:
        yield ""
        told = f"Where the forms differ: {len(apart)} of {counted(len(lines), 'probe')}"
        yield ink.bold(told)
        telling_first = sorted(apart, key=_apart, reverse=True)
        for line in telling_first[:_EVIDENCE]:
            yield from _evidence(line, cast, ink)
        if len(apart) > _EVIDENCE:
            yield ink.faint(f"  and {len(apart) - _EVIDENCE} more: --html and --json have them all")


def _apart(line: Line) -> float:
    """How much of its axis' score a line makes between the forms."""
    scores = [answer.score for answer in line.answers.values()]
    return line.weight * (max(scores) - min(scores))


def _evidence(line: Line, cast: Mapping[str, Look], ink: Ink) -> Iterator[str]:
    yield "  " + fit(titled(f"{line.title} ({line.axis})"), ink.width - 2)
    for key, answer in line.answers.items():
        if key in cast:
            outcome = fit(answer.outcome, 9)
            shown = ink.alarm(outcome) if answer.outcome == "open" else outcome
            room = ink.width - 16
            yield f"    {mark(cast[key], ink)} {shown} {fit(answer.evidence, room).rstrip()}"


def _kernels(report: Report, cast: Mapping[str, Look], ink: Ink) -> Iterator[str]:
    trials = report.portability.trials
    if not trials:
        return
    yield ""
    yield ink.bold(f"Kernels: {sum(t.works for t in trials)} of {len(trials)} work")
    for trial in trials:
        word = "works  " if trial.works else "does not"
        sign = mark(cast[trial.form], ink) if trial.form in cast else " "
        told = fit(f"{trial.kernel}: {trial.said}", ink.width - 14).rstrip()
        yield f"  {sign} {fit(word, 8)} {told}"


def _end(report: Report, ink: Ink) -> Iterator[str]:
    if report.left:
        yield ""
        yield ink.bold("Left out")
        for left in report.left[:_LEFT]:
            yield from ink.wrapped(f"{left.what}: {left.why}", "  ")
        if len(report.left) > _LEFT:
            yield ink.faint(
                f"  and {len(report.left) - _LEFT} more: --html and --json have them all"
            )
    yield ""
    sure = f"{100 * report.confidence:.0f} %"
    notes = [
        f"{counted(report.rounds, 'round')} in {report.seconds:.0f} s. In brackets: where the "
        f"median lies, with {sure} confidence. Words compare with the first form and are said only "
        f"of what a test found; no difference means that none was found.",
        _overhead(report),
        ", ".join(f"{name} {value}" for name, value in report.versions.items()),
        report.machine.get("accelerator", ""),
    ]
    for note in notes:
        if note:
            yield from (ink.faint(line) for line in ink.wrapped(note))


def _overhead(report: Report) -> str:
    known = [m for m in report.measures if m.overhead]
    if not known:
        return ""
    worst = max(known, key=lambda m: (m.overhead or 0) / (_middle(m) or 1))
    return f"Measuring took at most {amount(worst.overhead or 0, worst.unit)} ({worst.title})."


def _middle(measure: Measure) -> float:
    return min((i.median for i in measure.intervals.values() if i.median > 0), default=1.0)
