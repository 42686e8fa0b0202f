"""Figures of the concept pages: the report's plots, each as an SVG that stands alone.

The plots and their colours are those of `proa compare`'s page; what a page would give them (style,
hatching, a key to the forms, a ground to stand on) is written into the file.  Light or dark follows
the reader's system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from proa.compare.record import Report
from proa.compare.report import palette, plots
from proa.compare.report.looks import Look, looks
from proa.compare.report.markup import Markup, join, tag
from proa.compare.report.plots import distributions, ledger, memory, radar, ratios, timeline
from proa.compare.report.plots.canvas import key as key_of
from proa.compare.report.plots.canvas import short, text
from proa.compare.report.words import amount
from proa.costs import Part

WIDTH, MARGIN, HEAD, KEY = 720, 20, 34, 26
LETTERS_SHOWN = 10
STYLE = Path(plots.__file__).parent.parent / "page.css"
# Rules of the page's style that are about plots, by the first class of their selectors.
CLASSES = {
    "plot", "radar", "grid", "rule", "equal", "mark", "dot", "quartiles", "within", "median",
    "untold", "path", "part", "hatch", "hatch-lines", "trough", "key",
}  # fmt: skip
FONT = "system-ui, 'Noto Sans', 'Noto Sans KR', sans-serif"
RULE = re.compile(r"^\.([a-z-]+)[^{}]*\{[^{}]*\}", re.MULTILINE)
MEASURE = "time.first-reply.warm"
Cast = Mapping[str, Look]
Draw = Callable[[Report, Cast], Markup | None]


def samples(report: Report, cast: Cast) -> Markup | None:
    """Every start that was measured."""
    measure = next((m for m in report.measures if m.key == MEASURE), None)
    return distributions.draw("samples", measure, cast) if measure else None


def added(report: Report) -> list[Part]:
    """What a vm's ledger has and the container's has not."""
    image = set(report.ledgers.get("container", ()))
    return [part for part in report.ledgers.get("vm", ()) if part not in image]


def image_ledger(report: Report, cast: Cast) -> Markup | None:
    """The image's bytes, by who brought them."""
    return _ledger("container", "The image's bytes", cast, report.ledgers.get("container", ()))


def vm_ledger(report: Report, cast: Cast) -> Markup | None:
    """What a vm adds."""
    return _ledger("vm", "What the vm adds", cast, added(report))


def _ledger(key: str, title: str, cast: Cast, parts: Sequence[Part]) -> Markup | None:
    top = max((part.bytes for part in ledger.largest(parts)), default=0)
    return ledger.draw(f"ledger-{key}", title, cast.get(key), parts, top)


def stack(report: Report, cast: Cast) -> Markup | None:
    """The bars of memory, and below them what their letters mean."""
    parts = {key: report.memory[key] for key in cast if report.memory.get(key)}
    bars = memory.draw("memory", "Host memory", parts, cast)
    if bars is None:
        return None
    top, height, width = _height(bars), 0, 100 / len(parts)
    lines = []
    for column, (key, found) in enumerate(parts.items()):
        x = column * width
        lines.append(text(cast[key].title, x, top + 18, class_="lane figure"))
        for row, (letter, part) in enumerate(memory.ordered(found)[:LETTERS_SHOWN], 2):
            starred = "*" if part.shared else ""
            name = short(part.name, 66 // len(parts)) + starred
            words = f"{letter}  {name}, {amount(part.bytes, 'bytes')}"
            lines.append(text(words, x, top + 18 * row, class_="lane"))
            height = max(height, 18 * row + 8)
    taller = re.sub(r' height="\d+', f' height="{top + height}', bars, count=1)
    return Markup(taller.removesuffix("</svg>") + join(lines) + "</svg>")


def work(report: Report, cast: Cast) -> Markup | None:
    """How fast each kind of work is done."""
    rows = ratios.rows([m for m in report.measures if m.group == "work"], cast)
    first = next(iter(cast.values()), None)
    return ratios.draw("work", "Work done", f"like the {first.noun}", rows) if first else None


# Name → title above it, what draws it, whether it needs a key to the forms.
FIGURES: dict[str, tuple[str, Draw, bool]] = {
    "start": (
        "A start, milestone by milestone",
        lambda report, cast: timeline.draw("timeline", report.timelines, cast),
        True,
    ),
    "samples": ("Until the first good reply: every start that was measured", samples, False),
    "memory": (
        "Host memory of one idle instance, by part (* and hatched: shared)",
        stack,
        False,
    ),
    "image": ("Where the image's bytes went", image_ledger, False),
    "vm": ("What the vm form adds on disk", vm_ledger, False),
    "work": ("Work done, against the container", work, True),
    "isolation": (
        "Isolation by axis: 100 is closed, 0 is open",
        lambda report, cast: radar.draw("radar", report.isolation.scores, cast),
        True,
    ),
}


def draw(report: Report) -> dict[str, str]:
    """The figures there is something to draw in, by name, as the text of SVG files."""
    cast = looks(report.forms)
    found = {}
    for name, (title, make, keyed) in FIGURES.items():
        plot = make(report, cast)
        if plot is not None:
            shown = [look for look in cast.values() if f"f{look.slot}" in plot] if keyed else []
            found[name] = standalone(title, plot, shown)
    return found


def standalone(title: str, plot: Markup, cast: Iterable[Look] = ()) -> str:
    """One plot as a file; what it shows in words stays with it."""
    cast = list(cast)
    top = HEAD + (KEY if cast else 0) + 8
    height = _height(plot)
    size = f'x="{MARGIN}" y="{top}" width="{WIDTH}" height="{height}" overflow="visible"'
    inner = re.sub(r"^<svg(.*?)>", lambda found: f"<svg {size}{_kept(found[1])}>", plot, count=1)
    whole = WIDTH + 2 * MARGIN, top + height + MARGIN
    body = join(
        tag("style", Markup(style())),
        tag("defs", _hatch()),
        tag("rect", width="100%", height="100%", rx=10, class_="ground"),
        tag("text", title, x=MARGIN, y=HEAD - 8, class_="head"),
        [_key(look, number, len(cast)) for number, look in enumerate(cast)],
        Markup(inner),
    )
    names = " ".join(re.findall(r'(?:aria-labelledby|aria-describedby)="([^"]+)"', plot))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole[0]} {whole[1]}" '
        f'width="{whole[0]}" height="{whole[1]}" role="img" aria-labelledby="{names}" '
        f'class="plot">{body}</svg>\n'
    )


def _height(plot: Markup) -> int:
    head = plot[: plot.index(">")]
    if box := re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', head):
        return round(float(box[1]) * 1.25)
    found = re.search(r' height="(\d+)', head)
    return int(found[1]) if found else 0


def _kept(attributes: str) -> str:
    """A plot's own attributes but those of its place, and its names, which are the file's now."""
    drop = r' (?:width|height|role|aria-labelledby|aria-describedby)="[^"]*"'
    return re.sub(drop, "", attributes)


def _key(look: Look, number: int, count: int) -> Markup:
    x = MARGIN + 8 + number * (WIDTH // max(count, 1))
    mark = re.search(r"<path[^>]*>", key_of(look))
    shape = Markup(mark[0]) if mark else Markup("")
    return tag(
        "g",
        tag("svg", shape, x=x, y=HEAD + 12, overflow="visible", class_=f"mark f{look.slot}"),
        tag("text", look.title, x=x + 12, y=HEAD + 16.5, class_="lane"),
    )


def _hatch() -> Markup:
    line = tag("path", d="M0 0V7", class_="hatch-lines")
    return tag("pattern", line, id="hatch", width=5, height=7, patternUnits="userSpaceOnUse",
               patternTransform="rotate(45)")  # fmt: skip


def style() -> str:
    """Colours, and the rules about plots."""
    rules = [found[0] for found in RULE.finditer(STYLE.read_text("utf-8")) if found[1] in CLASSES]
    own = (
        f"svg{{font-family:{FONT}}}.ground{{fill:var(--card)}}"
        ".plot .head{font-size:16px;font-weight:660}.radar{max-width:none}"
    )
    return palette.css() + "".join(" ".join(rule.split()) for rule in rules) + own
