"""Numbers of the concept pages: each between comments that say where it comes from.

    <!--= web median time.first-output.warm vm -->197 ms<!--/=-->

The words are the name of a kept report, one of `KINDS`, and what that takes; `fill` writes what the
reports say.  What a page claims with `ratio` names its direction, and is refused when the report's
test does not bear it out, so that the prose around a number stays true when it is measured again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping

from proa.compare.record import Interval, Measure, Report
from proa.compare.report.words import DASH, amount, factor, spread, versus
from tools import docs_figures

MARK = re.compile(r"<!--= (.+?) -->(.*?)<!--/=-->", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]*`|!?\[[^\]]*\]\([^)]*\)|<!--.*?-->", re.DOTALL)
# A figure with a unit, or a factor: what no page may say on its own.
BARE = re.compile(
    r"\d[\d.,]*\s?(?:[kMGT]?i?B\b|ms\b|µs\b|s\b|%|\u00d7|초|밀리초|배\b|메가|기가|times\b|seconds?\b)"
)


SHARES = {"all": (True, False), "own": (False,), "shared": (True,)}


class Untrue(Exception):
    """A page says what the reports do not."""


def marks(page: str) -> list[str]:
    """The expressions of a page, in order."""
    return [found[1] for found in MARK.finditer(page)]


def fill(page: str, reports: Mapping[str, Report]) -> str:
    """The page with every number as the reports have it.  Raises Untrue."""

    def put(found: re.Match[str]) -> str:
        return f"<!--= {found[1]} -->{value(found[1], reports)}<!--/=-->"

    return MARK.sub(put, page)


def value(expression: str, reports: Mapping[str, Report]) -> str:
    """What one expression stands for.  Raises Untrue."""
    name, kind, *words = shlex.split(expression)
    if name not in reports or kind not in KINDS:
        raise Untrue(f"'{expression}': no report '{name}', or no kind '{kind}'")
    try:
        return KINDS[kind](reports[name], *words)
    except (KeyError, StopIteration, TypeError, ZeroDivisionError) as error:
        raise Untrue(f"'{expression}': the report does not have it ({error!r})") from None


def bare(page: str) -> Iterator[str]:
    """Figures with units that stand outside marks and code."""
    yield from (found[0] for found in BARE.finditer(CODE.sub(" ", MARK.sub(" ", page))))


def _measure(report: Report, key: str) -> Measure:
    return next(measure for measure in report.measures if measure.key == key)


def _interval(report: Report, key: str, form: str) -> tuple[Interval, str]:
    measure = _measure(report, key)
    return measure.intervals[form], measure.unit


def median(report: Report, key: str, form: str) -> str:
    """`197 ms`."""
    interval, unit = _interval(report, key, form)
    return amount(interval.median, unit)


def within(report: Report, key: str, form: str) -> str:
    """`197 ms (190-208)`: the median and where it lies."""
    interval, unit = _interval(report, key, form)
    near = spread(interval, unit)
    return amount(interval.median, unit) + (f" ({near})" if near else "")


def ratio(report: Report, key: str, form: str, other: str, verdict: str) -> str:
    """`8.1`: how many times `lower` or `higher` the form's value was found to be."""
    measure = _measure(report, key)
    found = versus(measure, form, other)
    if found is None or found.verdict != verdict:
        said = found.verdict if found else "nothing"
        raise Untrue(f"'{key}' of '{form}' against '{other}': {said}, not {verdict}")
    return factor(found)[0].removesuffix(".0")


def load(report: Report) -> str:
    """What else the machine did meanwhile: the load's lowest and highest."""
    return DASH.join(re.findall(r"\d+\.\d+", report.machine["load"])[:2])


def added(report: Report, which: str = "all") -> str:
    """What the vm's ledger has and the container's has not: `all`, `own`, `shared`, or by name."""
    parts = docs_figures.added(report)
    if which not in SHARES:
        return _sum([next(item.bytes for item in parts if item.name == which)])
    wanted = SHARES[which]
    return _sum(item.bytes for item in parts if item.shared in wanted)


def release(report: Report, what: str, form: str) -> str:
    """The first version in a row of portability, like `5.19`."""
    return _first(r"\d+(?:\.\d+)+", need(report, what, form))


def size(report: Report, what: str, form: str) -> str:
    """The first amount of bytes in a row of portability, like `1024 MiB`."""
    return _first(r"\d+ [kMG]i?B", need(report, what, form))


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise Untrue(f"nothing like {pattern} in '{text}'")
    return found[0]


def _sum(sizes: object) -> str:
    return amount(float(sum(sizes)), "bytes")  # type: ignore[call-overload]


def moment(report: Report, form: str, milestone: str) -> str:
    """When a start reached a milestone."""
    found = next(m for m in report.timelines[form] if m.milestone == milestone)
    return amount(found.ms, "ms")


def score(report: Report, form: str, axis: str = "total") -> str:
    """Isolation, 0 to 100."""
    return f"{report.isolation.scores[form][axis]:.0f}"


def below(report: Report, form: str, other: str, axis: str) -> str:
    """A form's score, which is below another's."""
    scores = report.isolation.scores
    if scores[form][axis] >= scores[other][axis]:
        raise Untrue(f"'{axis}' of '{form}' is not below that of '{other}'")
    return score(report, form, axis)


def lines(report: Report, form: str = "", outcome: str = "") -> str:
    """How many probes there were, or had an outcome in a form."""
    found = report.isolation.lines
    if not form:
        return str(len(found))
    return str(sum(line.answers[form].outcome == outcome for line in found if form in line.answers))


def trials(report: Report, which: str) -> str:
    """How many trials there were (`all`), or worked."""
    found = report.portability.trials
    return str(len(found) if which == "all" else sum(trial.works for trial in found))


def need(report: Report, what: str, form: str) -> str:
    """A row of portability."""
    return next(n.answers[form] for n in report.portability.needs if n.what == what)


def kernels(report: Report, form: str) -> str:
    """The kernels on which it worked in a form."""
    names = [
        t.kernel.split(",")[0] for t in report.portability.trials if t.form == form and t.works
    ]
    return ", ".join(dict.fromkeys(names))


KINDS: dict[str, Callable[..., str]] = {
    "median": median, "within": within, "ratio": ratio, "moment": moment, "added": added,
    "score": score, "below": below, "lines": lines, "load": load,
    "trials": trials, "kernels": kernels, "need": need, "release": release, "amount": size,
    "machine": lambda report, name: report.machine[name],
    "bytes": lambda report, name: amount(float(report.machine[name]), "bytes"),
    "version": lambda report, name: report.versions[name],
    "date": lambda report: report.made[:10],
    "rounds": lambda report: str(report.rounds),
    "confidence": lambda report: f"{report.confidence:.0%}",
    "form": lambda report, key: next(f.kernel for f in report.forms if f.key == key),
    "started": lambda report, key: next(f.start for f in report.forms if f.key == key),
}  # fmt: skip
