"""Tables and other repeated pieces of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proa.compare.report.looks import Look
from proa.compare.report.markup import Child, Markup, join, tag
from proa.compare.report.plots.canvas import key, short
from proa.compare.report.words import titled


def section(name: str, title: str, lead: Child, *body: Child) -> Markup:
    """A part of the page, with its place in the contents."""
    head = tag("h2", title, id=f"{name}-head")
    words = tag("p", lead, class_="lead") if lead else None
    return tag("section", head, words, *body, id=name, aria_labelledby=f"{name}-head")


def card(title: Child, *body: Child, wide: bool = False) -> Markup:
    """A framed piece with a heading."""
    if type(title) is str:
        title = titled(title)
    return tag("article", tag("h3", title), *body, class_="card wide" if wide else "card")


def fold(summary: str, *body: Child, unfolded: bool = False) -> Markup:
    """Details, shown when asked for."""
    inner = tag("div", *body, class_="folded")
    return tag("details", tag("summary", summary), inner, open=unfolded)


def table(caption: str, head: Sequence[Child], rows: Sequence[Sequence[Child]]) -> Markup:
    """A table whose first column names its rows; it scrolls by itself where it is too wide."""
    columns = tag("tr", [tag("th", cell, scope="col") for cell in head])
    body = [tag("tr", _cells(row)) for row in rows]
    found = tag("table", tag("caption", caption), tag("thead", columns), tag("tbody", body))
    return tag("div", found, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _cells(row: Sequence[Child]) -> Markup:
    return join(tag("th", _first(row), scope="row"), [tag("td", cell) for cell in row[1:]])


def _first(row: Sequence[Child]) -> Child:
    """What names a row; markup stays as it is."""
    return titled(row[0]) if type(row[0]) is str else row[0]


def asked(what: str, how: Child) -> Markup:
    """What was looked at, and how it was found, below it."""
    return join(tag("span", titled(what)), tag("small", how))


def stacked(caption: str, head: Sequence[str], rows: Sequence[Sequence[Child]]) -> Markup:
    """A table of words: at a phone's width its cells stand below each other, each with its column.

    Roles are written out, since a table laid out as blocks loses them.
    """
    columns = [tag("th", cell, scope="col", role="columnheader") for cell in head]
    body = [
        tag("tr", tag("th", _first(row), scope="row", role="rowheader"),
            [tag("td", tag("div", cell), role="cell", data_label=name)
             for name, cell in zip(head[1:], row[1:], strict=True)], role="row")
        for row in rows
    ]  # fmt: skip
    return tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", tag("tr", columns, role="row"), role="rowgroup"),
        tag("tbody", body, role="rowgroup"),
        class_="stacked", role="table",
    )  # fmt: skip


def named(look: Look) -> Markup:
    """A form's mark and title."""
    return tag("span", key(look), " ", look.title, class_="named")


def brief(look: Look) -> Markup:
    """A form's mark and noun, for narrow columns."""
    return tag("span", key(look), " ", short(look.noun), class_="named")


def titles(cast: Mapping[str, Look]) -> list[str]:
    """The forms' titles, as columns."""
    return [look.title for look in cast.values()]
