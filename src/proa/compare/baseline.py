"""A report against an earlier one of the same subject: what changed beyond noise.

Both kept every sample, so the tests are those of a comparison; but the rounds of two reports were
not interleaved.  Whatever drifted between them (the host's load, its clock, its neighbours) looks
like a change, so more is demanded of one: `LEAST_CHANGE`, and intervals that lie apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proa.compare import statistics
from proa.compare.record import (
    AnswerChange,
    Change,
    Changes,
    Form,
    Interval,
    Left,
    Measure,
    Report,
)
from proa.compare.statistics import Judged, Pair

LEAST_CHANGE = 0.10  # of the median
_MOVING = frozenset({"load", "seed", "cached after cooling"})  # differ each time
_WORDS = ("lower", "higher")


def changes(before: Report, now: Report) -> Changes:
    """What the later report has otherwise, at its own confidence."""
    earlier = {measure.key: measure for measure in before.measures}
    rows = [
        (measure, form)
        for measure in now.measures
        if measure.key in earlier and measure.unit == earlier[measure.key].unit
        for form in measure.samples
        if measure.samples[form] and earlier[measure.key].samples.get(form)
    ]
    pairs = [_pair(measure, earlier[measure.key], form) for measure, form in rows]
    judged = statistics.judge(pairs, now.confidence)
    return Changes(
        subject=now.subject,
        before=before.made,
        now=now.made,
        confidence=now.confidence,
        forms=_forms(before, now),
        measures=tuple(
            _change(measure, earlier[measure.key], form, said, now.confidence)
            for (measure, form), said in zip(rows, judged, strict=True)
        ),
        answers=tuple(_answers(before, now)),
        unlike=tuple(_unlike(before, now)),
        left=tuple(_left(before, now)),
    )


def any_changed(found: Changes) -> bool:
    """Whether something is lower or higher, or a probe answers otherwise."""
    return bool(found.answers) or any(change.verdict in _WORDS for change in found.measures)


def _pair(now: Measure, before: Measure, form: str) -> Pair:
    return Pair(
        now.samples[form], before.samples[form], f"{now.key} {form} before",
        now.group in statistics.EXACT_GROUPS,
    )  # fmt: skip


def _change(now: Measure, before: Measure, form: str, said: Judged, confidence: float) -> Change:
    ours = statistics.interval(now.samples[form], confidence, f"{now.key} {form}")
    theirs = statistics.interval(before.samples[form], confidence, f"{before.key} {form}")
    exact = now.group in statistics.EXACT_GROUPS
    verdict = said.verdict
    if verdict in _WORDS and not exact and not _apart(ours, theirs):
        verdict = "no difference"
    return Change(
        now.key, now.group, now.title, now.unit, now.better, form, theirs, ours,
        said.ratio, said.low, said.high, said.p, verdict,
    )  # fmt: skip


def _apart(now: Interval, before: Interval) -> bool:
    most = max(abs(now.median), abs(before.median))
    far = abs(now.median - before.median) >= LEAST_CHANGE * most
    return far and (now.low > before.high or now.high < before.low)


def _forms(before: Report, now: Report) -> tuple[Form, ...]:
    known = {form.key for form in before.forms}
    return tuple(form for form in now.forms if form.key in known)


def _answers(before: Report, now: Report) -> Iterator[AnswerChange]:
    earlier = {line.key: line for line in before.isolation.lines}
    for line in now.isolation.lines:
        for form, answer in line.answers.items():
            was = earlier[line.key].answers.get(form) if line.key in earlier else None
            if was is None or "not tried" in (was.outcome, answer.outcome):
                continue
            if was.outcome != answer.outcome:
                yield AnswerChange(line.key, line.axis, line.title, form, was, answer)


def _unlike(before: Report, now: Report) -> Iterator[tuple[str, str, str]]:
    yield from _differing(_named(before), _named(now))
    yield from _differing(before.versions, now.versions)
    yield from _differing(before.machine, now.machine)
    for form in _forms(before, now):
        was = next(one for one in before.forms if one.key == form.key)
        pairs = {"kernel": (was.kernel, form.kernel), "start": (was.start, form.start)}
        for name, (old, new) in pairs.items():
            if old != new and _sort(old) != _sort(new):
                yield f"{name} of {form.title}", old, new


def _sort(start: str) -> str:
    """The ways of starting without how often each was."""
    return "".join(char for char in start if not char.isdigit())


def _named(report: Report) -> dict[str, str]:
    subject = report.subject
    return {
        "image": subject.name, "image's id": subject.id, "platform": subject.platform,
        "command": " ".join(subject.command),
    }  # fmt: skip


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name, ""), now.get(name, "")
        if old != new and name not in _MOVING:
            yield name, old, new


def _left(before: Report, now: Report) -> Iterator[Left]:
    """Forms, and measures of the forms both have, that are in one report only."""
    shared = {form.key for form in _forms(before, now)}
    for which, ours, theirs in (("earlier", before, now), ("later", now, before)):
        for form in ours.forms:
            if form.key not in shared:
                yield Left(form.title, f"only in the {which} report")
        known = {measure.key: set(measure.samples) for measure in theirs.measures}
        for measure in ours.measures:
            alone = [f for f in measure.samples if f in shared - known.get(measure.key, set())]
            if alone:
                of = "" if measure.key not in known else f", of {', '.join(alone)}"
                yield Left(measure.title, f"only in the {which} report{of}")
