"""The end of the page: where it can run, how it was measured, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proa.compare.record import Report, Trial
from proa.compare.report.looks import Look
from proa.compare.report.markup import Markup, join, tag
from proa.compare.report.sections import tables
from proa.compare.report.sections.isolation import badge
from proa.compare.report.words import DASH, counted, titled
from proa.compare.statistics import MINIMUM_EFFECT

_LEFT = 8  # unfolded


def portability(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    """What a host must have, and the kernels it was tried on."""
    found = report.portability
    if not found.needs and not found.trials:
        return None
    asked = {key: look for key, look in cast.items() if any(key in n.answers for n in found.needs)}
    rows = [
        (
            tables.asked(need.what, need.how),
            *(tag("span", need.answers.get(key, DASH)) for key in asked),
        )
        for need in found.needs
    ]
    head = ("What, and how it was found", *tables.titles(asked))
    return tables.section(
        "portability", "Portability", "What a host must have to run it, and where it was tried.",
        tables.stacked("What a host must have", head, rows) if rows else None,
        _kernels(found.trials, cast),
    )  # fmt: skip


def _kernels(trials: Sequence[Trial], cast: Mapping[str, Look]) -> Markup | None:
    if not trials:
        return None
    forms = list(dict.fromkeys(trial.form for trial in trials))
    kernels = list(dict.fromkeys(trial.kernel for trial in trials))
    by_place = {(trial.kernel, trial.form): trial for trial in trials}
    rows = [
        (kernel, *(_trial(by_place.get((kernel, form))) for form in forms)) for kernel in kernels
    ]
    names = [cast[form].title if form in cast else form for form in forms]
    works = sum(trial.works for trial in trials)
    title = f"Kernels it was tried on: {works} of {len(trials)} work"
    return join(tag("h3", title), tables.stacked(title, ("Kernel", *names), rows))


def _trial(trial: Trial | None) -> Markup:
    if trial is None:
        return Markup(DASH)
    word = badge("closed", "works") if trial.works else badge("open", "does not work")
    return join(word, tag("small", trial.said))


def method(report: Report, cast: Mapping[str, Look]) -> Markup:
    """What was left out, how it was tested, the machine, every version, every sample."""
    sure = f"{100 * report.confidence:.0f} %"
    words = (
        f"The forms took turns for {counted(report.rounds, 'round')}. Intervals are of the median,"
        f" by bootstrap, at {sure}. A word like “faster” is said only when a two-sided test,"
        f" corrected for the number of measures, finds a difference at {sure} and the medians lie"
        f" {100 * MINIMUM_EFFECT:.0f} % apart or more; the rest is called"
        " “no difference”, which means that none was found, not that there is none."
    )
    command = " ".join(report.subject.command)
    subject = {
        "Subject": f"{report.subject.kind} {report.subject.name}",
        "Id": report.subject.id,
        "Platform": report.subject.platform,
        "Command": command,
        "Port waited for": str(report.subject.port) if report.subject.port else "",
    }
    return tables.section(
        "method", "How this was measured", words,
        _left(report),
        tag("div", _pairs("What was run", subject), _pairs("Machine", report.machine),
            _pairs("Versions", report.versions), class_="cards uneven"),
        _samples(report, cast) if report.measures else None,
    )  # fmt: skip


def _left(report: Report) -> Markup | None:
    if not report.left:
        return None
    items = [tag("li", tag("strong", titled(e.what)), f": {e.why}") for e in report.left]
    first, more = tag("ul", items[:_LEFT], class_="left"), items[_LEFT:]
    rest = tables.fold(f"And {len(more)} more", tag("ul", more, class_="left")) if more else None
    return join(tag("h3", "What was left out"), first, rest)


def _pairs(title: str, values: Mapping[str, str]) -> Markup | None:
    rows = [
        tag("div", tag("dt", titled(name)), tag("dd", value))
        for name, value in values.items()
        if value
    ]
    return tables.card(title, tag("dl", rows, class_="pairs")) if rows else None


def _samples(report: Report, cast: Mapping[str, Look]) -> Markup:
    rows = [
        (measure.title, tables.named(cast[key]), measure.unit,
         ", ".join(f"{value:.6g}" for value in values))
        for measure in report.measures
        for key, values in measure.samples.items() if key in cast and values
    ]  # fmt: skip
    head = ("Measure", "Form", "Unit", "Samples, in the order they were taken")
    return tables.fold("Every sample", tables.table("Every sample", head, rows))
