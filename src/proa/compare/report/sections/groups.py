"""The measured parts of the page: start, cost, size and work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proa.compare.record import Measure, Report
from proa.compare.report.headline import telling
from proa.compare.report.looks import Look
from proa.compare.report.markup import Markup, join, tag
from proa.compare.report.plots import ledger, memory, ratios, timeline
from proa.compare.report.plots.canvas import short
from proa.compare.report.sections import figures, tables
from proa.compare.report.words import DASH, amount
from proa.costs import Part


def of(report: Report, group: str) -> list[Measure]:
    """The measures of a group."""
    return [measure for measure in report.measures if measure.group == group]


_READ_DOWN = "Read downward: the medians of warm starts, counted from the request. "
_READ_DOWN += "The axis is logarithmic where forms are far apart."


def start(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    """How long until it answers."""
    measures = of(report, "time")
    plot = timeline.draw("timeline", report.timelines, cast)
    if not measures and plot is None:
        return None
    rest = [measure for measure in measures if measure not in telling(measures)]
    further = figures.cards("further", rest, cast)
    lead = "From the request to when it is there. Every dot is one start; the box holds the "
    lead += "middle half of them, the bar the median and where it lies. Words compare with the "
    lead += f"{next(iter(cast.values())).noun}."
    shown = (
        tables.card("A start, milestone by milestone", plot,
                    tag("p", _READ_DOWN, class_="how"), _moments(report, cast), wide=True)
        if plot else None
    )  # fmt: skip
    return tables.section(
        "start", "Start", lead, shown, figures.cards("start", telling(measures), cast),
        _seen_once(telling(measures), cast),
        tables.fold("Every milestone", further) if further else None,
        figures.folded("Every figure of a start", measures, cast),
    )  # fmt: skip


def _seen_once(measures: Sequence[Measure], cast: Mapping[str, Look]) -> Markup | None:
    """What has no distribution to draw."""
    once = [measure for measure in measures if measure.intervals and not figures.sampled(measure)]
    return figures.side_by_side("Taken once", once, cast) if once else None


def _moments(report: Report, cast: Mapping[str, Look]) -> Markup:
    known = {key: {m.milestone: m.ms for m in report.timelines.get(key, ())} for key in cast}
    rows = [
        (name, *(amount(known[key][name], "ms") if name in known[key] else DASH for key in cast))
        for name in timeline.milestones(report.timelines)
    ]
    head = ("Milestone", *map(tables.brief, cast.values()))
    return tables.fold("As a table", tables.table("Medians since the request", head, rows))


def cost(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    """What one instance takes from the host."""
    measures = of(report, "cost")
    plot = memory.draw("memory", "Host memory of one instance, by part", report.memory, cast)
    if not measures and plot is None:
        return None
    lead = "What one instance takes from the host while it does nothing. Everything the form brings"
    lead += " is counted once; hatched parts are shared with others."
    stack = None
    if plot:
        stack = tables.card("Where the memory is", plot, _parts(report, cast), wide=True)
    return tables.section(
        "cost", "Cost", lead, stack, figures.cards("cost", measures, cast),
        _seen_once(measures, cast),
        figures.folded("Every figure of cost", measures, cast),
    )  # fmt: skip


def _parts(report: Report, cast: Mapping[str, Look]) -> Markup:
    lists = [
        tag("div", tag("h4", tables.named(cast[key])),
            tag("ul", [_part(letter, part) for letter, part in memory.ordered(parts)],
                class_="parts"))
        for key in cast if (parts := report.memory.get(key))
    ]  # fmt: skip
    return tag("div", lists, class_="columns")


def _part(letter: str, part: Part) -> Markup:
    note = ", ".join(words for words in ("shared" if part.shared else "", part.note) if words)
    return tag("li", tag("span", letter, class_="letter-box"),
               tag("span", part.name, tag("small", note) if note else None),
               tag("span", amount(part.bytes, "bytes"), class_="num"))  # fmt: skip


def size(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    """How large it is, and where the bytes went."""
    measures = of(report, "size")
    known = _ledgers(report, cast)
    if not measures and not known:
        return None
    top = max((part.bytes for parts in known.values() for part in parts), default=0)
    shown = []
    for number, (keys, parts) in enumerate(known.items()):
        names = [cast[key].title if key in cast else key for key in keys]
        words = f"Where the bytes went: {' and '.join(names)}"
        plot = ledger.draw(f"ledger-{number}", words, cast.get(keys[0]), parts, top)
        total = amount(sum(part.bytes for part in parts), "bytes")
        marked = [tables.named(cast[key]) if key in cast else key for key in keys]
        title = tag("span", *([name, " "] for name in marked))
        head = join(title, tag("span", total, class_="total"))
        shown.append(tables.card(head, plot, _ledger_table(words, parts)))
    table = figures.side_by_side("Sizes of each form", measures, cast) if measures else None
    lead = "Counted, not sampled: the bytes of files, as blocks on disk unless said otherwise."
    bars = join(tag("h3", "Where the bytes went"), tag("div", shown, class_="cards uneven"))
    return tables.section("size", "Size", lead, table, bars if shown else None)


def _ledgers(report: Report, cast: Mapping[str, Look]) -> dict[tuple[str, ...], Sequence[Part]]:
    """Ledgers in the forms' order; forms whose ledgers are the same stand together."""
    order = [*(key for key in cast if key in report.ledgers),
             *(key for key in report.ledgers if key not in cast)]  # fmt: skip
    together: dict[tuple[Part, ...], list[str]] = {}
    for key in order:
        if report.ledgers[key]:
            together.setdefault(tuple(report.ledgers[key]), []).append(key)
    return {tuple(keys): parts for parts, keys in together.items()}


def _ledger_table(caption: str, parts: Sequence[Part]) -> Markup:
    rows = [
        (part.name, amount(part.bytes, "bytes"), "yes" if part.shared else "no", part.note or DASH)
        for part in sorted(parts, key=lambda part: -part.bytes)
    ]
    found = tables.table(caption, ("Part", "Bytes", "Shared", "Note"), rows)
    return tables.fold(f"All {len(rows)} parts as a table", found)


def work(report: Report, cast: Mapping[str, Look]) -> Markup | None:
    """How well it works once it runs."""
    measures = of(report, "work")
    if not measures:
        return None
    first = next(iter(cast.values()))
    plot = ratios.draw("work-ratios", f"Work done, compared with: {first.title}",
                       f"like the {short(first.noun)}", ratios.rows(measures, cast))  # fmt: skip
    lead = "Each mark is a ratio of medians with its interval; to the right is better, "
    lead += "on a logarithmic axis. "
    lead += "A pale mark is one that could not be told from the line."
    shown = tables.card("Work done, side by side", plot, wide=True) if plot else None
    cards = figures.cards("work", measures, cast)
    return tables.section(
        "work", "Work", lead if plot else "", shown,
        tables.fold("Distributions and how each was measured", cards, unfolded=plot is None)
        if cards else None,
        figures.folded("Every figure of work", measures, cast),
    )  # fmt: skip
