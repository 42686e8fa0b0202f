"""The verdict in sentences, made of what was tested and of nothing else.

The first form is what the others are compared with.  Isolation is counted, not tested, and said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proa.compare.record import Difference, Measure, Report
from proa.compare.report.looks import Look, looks
from proa.compare.report.words import (
    comparative,
    counted,
    differs,
    factor,
    is_better,
    versus,
)

# What stands for a start, and for memory: the first of these that was tested.
START = (
    "time.ready", "time.first-reply", "time.port", "time.first-output", "time.end", "time.exec",
    "time.",
)  # fmt: skip
CONDITIONS = (".warm", ".cold", ".burst")
MEMORY = ("cost.memory",)
SIZE = ("size.disk", "size.unpacked", "size.")


@dataclass(frozen=True)
class Claim:
    """How a measure is told: `verb` before the factor, `of` after the word of comparison."""

    prefixes: tuple[str, ...]
    subject: str
    verb: str
    of: str
    plural: str


_STARTS = Claim(START, "On this machine the {}", "started", "", "starts")
_DISK = Claim(SIZE, "The {}", "takes", " disk space", "disk space")
_MEMORY = Claim(MEMORY, "The {}", "took", " memory", "use of memory")


def sentences(report: Report) -> tuple[str, ...]:
    """The headline, then what else can be said.  Never empty."""
    cast = looks(report.forms)
    if not report.measures and not report.isolation.lines:
        trials = report.portability.trials
        worked = f"It worked in {sum(trial.works for trial in trials)} of {len(trials)} trials."
        return (worked if trials else "Nothing could be measured.",)
    if len(cast) == 1:
        (look,) = cast.values()
        return (f"One form was measured: {look.title}. There is nothing to compare it with.",)
    said = (
        _claim(report, cast, _STARTS),
        _claim(report, cast, _MEMORY),
        _claim(report, cast, _DISK),
        *_work(report, cast),
        *_isolation(report, cast),
    )
    told = tuple(sentence for sentence in said if sentence)
    return told or (_untold(report),)


def pick(measures: Sequence[Measure], prefixes: Sequence[str]) -> Measure | None:
    """The measure that stands for a group: by prefix, warm before cold, tested before not."""
    for prefix in prefixes:
        found = [m for m in measures if m.key.startswith(prefix) and any(m.samples.values())]
        found.sort(key=lambda m: (not m.differences, "warm" not in m.key))
        if found:
            return found[0]
    return None


def telling(measures: Sequence[Measure]) -> list[Measure]:
    """Of the times, the last milestone of each condition: when it was there."""
    found = []
    for condition in CONDITIONS:
        measure = pick([m for m in measures if m.key.endswith(condition)], START)
        if measure:
            found.append(measure)
    return found or list(measures)


def _claim(report: Report, cast: Mapping[str, Look], claim: Claim) -> str:
    measure = pick(report.measures, claim.prefixes)
    if measure is None:
        return ""
    whole = {form.key for form in report.forms if claim is _STARTS or not form.only_start}
    first, *others = (look for key, look in cast.items() if key in whole)
    clauses = []
    alike = []
    few = False
    for other in others:
        found = versus(measure, first.key, other.key)
        if found and differs(found):
            clauses.append(_clause(measure, found, claim, other))
        elif found and found.verdict == "no difference" and claim is not _DISK:
            alike.append(other)
        few = few or bool(found and found.verdict == "too few samples")
    told = ""
    if clauses:
        told = f"{claim.subject.format(first.noun)} {claim.verb} {_listed(clauses)}."
    if alike:
        names = _listed([f"the {look.noun}" for look in (first, *alike)])
        told = f"{told} No difference was found between {names} in {claim.plural}."
    if few and not told and claim is _STARTS:
        return "Too few starts were measured to tell the forms apart."
    return told.strip()


def _clause(measure: Measure, found: Difference, claim: Claim, other: Look) -> str:
    word = comparative(measure.unit, measure.better, found.verdict)
    if not found.ratio or found.ratio == float("inf"):
        return f"{word}{claim.of} than the {other.noun}"
    shown, within = factor(found)
    interval = f" ({within})" if within else ""
    return f"{shown}{interval} times {word}{claim.of} than the {other.noun}"


def _work(report: Report, cast: Mapping[str, Look]) -> list[str]:
    first, *others = cast.values()
    said = []
    for other in others:
        better, worse, alike = tally(report.measures, other.key, first.key)
        count = better + worse + alike
        if count:
            parts = [f"worse in {worse}"] if worse else []
            parts += [f"better in {better}"] if better else []
            did = f"the {other.noun} did {' and '.join(parts)}" if parts else ""
            rest = f"in {alike} no difference was found" if alike else ""
            told = "; ".join(part for part in (did, rest) if part)
            said.append(f"Of {counted(count, 'measure')} of work {told}.")
    return said


def tally(measures: Sequence[Measure], form: str, other: str) -> tuple[int, int, int]:
    """In how many measures of work a form is better, worse, and not told apart."""
    better = worse = alike = 0
    for measure in measures:
        found = versus(measure, form, other) if measure.group == "work" else None
        verdict = is_better(measure, found)
        better += verdict is True
        worse += verdict is False
        alike += found is not None and found.verdict == "no difference"
    return better, worse, alike


def _isolation(report: Report, cast: Mapping[str, Look]) -> list[str]:
    lines = report.isolation.lines
    totals = {
        key: report.isolation.scores[key]["total"]
        for key in cast
        if "total" in report.isolation.scores.get(key, {})
    }
    if not lines or len(totals) < 2:
        return []
    told = _listed([f"{score:.0f} for the {cast[key].noun}" for key, score in totals.items()])
    return [f"Isolation, by {counted(len(lines), 'probe')} from inside, is {told}, of 100."]


def _untold(report: Report) -> str:
    if any(d.verdict == "too few samples" for m in report.measures for d in m.differences):
        return "Too few samples were taken to tell the forms apart."
    return "No difference could be tested."


def _listed(words: Sequence[str]) -> str:
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
