"""What changed since an earlier comparison: in the terminal, and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from proa.compare.record import AnswerChange, Change, Changes
from proa.compare.report import page as pages
from proa.compare.report.ink import Ink, fit
from proa.compare.report.looks import Look, looks
from proa.compare.report.markup import Child, Markup, join, tag
from proa.compare.report.plots import ratios
from proa.compare.report.sections import tables
from proa.compare.report.sections.isolation import badge
from proa.compare.report.words import (
    DASH,
    UNTESTED,
    comparative,
    counted,
    estimate,
    titled,
    told_factor,
)

_ARROW = "→"
_SORTS = ("for the worse", "for the better", "neither better nor worse")


def render(changes: Changes, width: int = 80, colour: bool = False) -> str:
    """The changes in at most `width` columns (40 at least), ending in a line feed."""
    ink = Ink(max(width, 40), colour)
    cast = looks(changes.forms)
    lines = [ink.bold(line) for line in ink.wrapped(headline(changes))]
    lines += ink.wrapped(_compared(changes))
    lines += _listed(
        "Also different", [f"{n}: {a} {_ARROW} {b}" for n, a, b in changes.unlike], ink
    )
    for sort, found in sorted_changes(changes).items():
        if found:
            lines += ["", ink.bold(f"Changed {sort}")]
            for change in found:
                lines += _change(change, cast, ink)
    if changes.answers:
        lines += ["", ink.bold("Isolation")]
        for answer in changes.answers:
            lines += _answer(answer, cast, ink)
    lines += _listed("Left out", [f"{left.what}: {left.why}" for left in changes.left], ink)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def headline(changes: Changes) -> str:
    """How many changed, of how many."""
    by_sort = sorted_changes(changes)
    tested = [each for each in changes.measures if each.verdict != "too few samples"]
    number = sum(map(len, by_sort.values()))
    if not tested:
        return "Nothing could be tested against the earlier report."
    told = f"Of {counted(len(tested), 'figure')} {number or 'none'} changed beyond noise"
    parts = [f"{len(found)} {sort}" for sort, found in by_sort.items() if found]
    told = f"{told}: {', '.join(parts)}." if parts else f"{told}."
    few = len(changes.measures) - len(tested)
    return f"{told} Of {few} more there were too few samples." if few else told


def sorted_changes(changes: Changes) -> dict[str, list[Change]]:
    """The changes a test found, by whether they are for the worse."""
    found: dict[str, list[Change]] = {sort: [] for sort in _SORTS}
    for change in changes.measures:
        if change.verdict not in UNTESTED:
            at = 2 if not change.better else int(change.verdict == change.better)
            found[_SORTS[at]].append(change)
    return found


def words(change: Change) -> str:
    """What may be said of a change, as `1.4x slower (1.3-1.6)`."""
    if change.verdict in UNTESTED:
        return change.verdict
    word = comparative(change.unit, change.better, change.verdict)
    return told_factor(change.ratio, change.low, change.high, word)


def _compared(changes: Changes) -> str:
    before, now = (_when(made) for made in (changes.before, changes.now))
    return f"{changes.subject.name}: {now}, compared with {before}."


def _when(made: str) -> str:
    return made.replace("T", " ").replace("Z", " UTC")


def _listed(title: str, texts: Sequence[str], ink: Ink) -> Iterator[str]:
    if texts:
        yield ""
        yield ink.bold(title)
        for text in texts:
            yield from ink.wrapped(text, "  ")


def _change(change: Change, cast: Mapping[str, Look], ink: Ink) -> Iterator[str]:
    look = cast.get(change.form)
    sign = ink.form(look, look.glyph) if look else " "
    noun = f" ({look.noun})" if look else ""
    figures = f"{estimate(change.before, change.unit)} {_ARROW} {estimate(change.now, change.unit)}"
    yield f"  {sign} {fit(titled(change.title) + noun, ink.width - 4)}"
    if len(figures) + len(words(change)) + 7 <= ink.width:
        yield f"    {figures}  {ink.bold(words(change))}"
    else:
        yield f"    {fit(figures, ink.width - 4)}"
        yield f"    {ink.bold(fit(words(change), ink.width - 4))}"


def _answer(answer: AnswerChange, cast: Mapping[str, Look], ink: Ink) -> Iterator[str]:
    look = cast.get(answer.form)
    sign = ink.form(look, look.glyph) if look else " "
    yield f"  {sign} {fit(titled(f'{answer.title} ({answer.axis})'), ink.width - 4)}"
    told = f"{answer.before.outcome} {_ARROW} {answer.now.outcome}: {answer.now.evidence}"
    yield f"    {fit(told, ink.width - 4)}"


def page(changes: Changes) -> str:
    """The changes as one page that needs nothing but itself."""
    cast = looks(changes.forms)
    parts = (
        ("changed", _changed(changes, cast)),
        ("answers", _answers(changes, cast)),
        ("unlike", _unlike(changes)),
    )
    shown = [(name, part) for name, part in parts if part]
    opening = tag("div", tag("p", _compared(changes), class_="subject"),
                  tag("h1", headline(changes)), class_="opening")  # fmt: skip
    main = join(opening, [part for _, part in shown])
    title = f"{changes.subject.name}: what changed"
    return pages.document(title, [name for name, _ in shown], main)


def _changed(changes: Changes, cast: Mapping[str, Look]) -> Markup | None:
    if not changes.measures:
        return None
    found = [change for sort in sorted_changes(changes).values() for change in sort]
    drawn = []
    for change in found:
        look = cast.get(change.form)
        made = ratios.ratio(look, change.better, change, words(change)) if look else None
        if made:
            drawn.append((titled(change.title), [made]))
    plot = ratios.draw("changes", "Now, compared with before", "as before", drawn)
    lead = "Now against before: to the right is better. Only what a test found is drawn."
    everything = tables.table("Every figure, now and before", _HEAD, _rows(changes.measures, cast))
    return tables.section(
        "changed", "Changed beyond noise", lead if plot else "Nothing, as far as a test can tell.",
        tables.card("Now, compared with before", plot, wide=True) if plot else None,
        tables.stacked("What changed", _HEAD, _rows(found, cast)) if found else None,
        tables.fold("Every figure, now and before", everything),
    )  # fmt: skip


_HEAD = ("Measure", "Form", "Before", "Now", "Found", "p")


def _rows(found: Sequence[Change], cast: Mapping[str, Look]) -> list[Sequence[Child]]:
    return [
        (
            change.title,
            tables.brief(cast[change.form]) if change.form in cast else change.form,
            estimate(change.before, change.unit),
            estimate(change.now, change.unit),
            words(change),
            f"{change.p:.2g}",
        )
        for change in found
    ]


def _answers(changes: Changes, cast: Mapping[str, Look]) -> Markup | None:
    if not changes.answers:
        return None
    rows = [
        (
            tables.asked(each.title, tag("b", each.axis)),
            tables.named(cast[each.form]) if each.form in cast else each.form,
            join(badge(each.before.outcome, each.before.outcome),
                 tag("small", each.before.evidence)),
            join(badge(each.now.outcome, each.now.outcome), tag("small", each.now.evidence)),
        )
        for each in changes.answers
    ]  # fmt: skip
    title = "Probes answered otherwise"
    body = tables.stacked(title, ("Probe", "Form", "Before", "Now"), rows)
    return tables.section("answers", title, "", body)


def _unlike(changes: Changes) -> Markup | None:
    if not changes.unlike and not changes.left:
        return None
    rows = [(name, before or DASH, now or DASH) for name, before, now in changes.unlike]
    lead = "A change may come from here as well as from what was compared."
    left = [tag("li", tag("strong", each.what), f": {each.why}") for each in changes.left]
    return tables.section(
        "unlike", "Also different", lead if rows else "",
        tables.table("What else differs", ("What", "Before", "Now"), rows) if rows else None,
        join(tag("h3", "Left out"), tag("ul", left, class_="left")) if left else None,
    )  # fmt: skip
