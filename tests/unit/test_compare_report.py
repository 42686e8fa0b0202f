"""Reports in words, as terminals show them, and as markup: nothing untested is said, nothing
hostile comes through."""

from __future__ import annotations

import io
import itertools
import math
import re
import statistics
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as some

from proa.compare.record import Difference, Interval, Isolation, Measure, Portability, Report
from proa.compare.report import changes, headline, page, palette, terminal, words
from proa.compare.report.looks import looks
from proa.compare.report.plots import distributions, ledger, memory, radar
from proa.compare.report.scales import axis
from tests.support import reports

COMPARED = re.compile(r"\dx (?:faster|slower|less|more)|times (?:faster|slower|less|more)")
PLAIN = str.maketrans({"\u00d7": "x", "\u2013": "-"})  # what is typed more easily
UNTESTED = ("one form", "one sample", "no samples", "nothing", "no difference")
VOID = {"meta", "br", "col", "link"}


@pytest.fixture(scope="module", params=sorted(reports.CASES))
def case(request: pytest.FixtureRequest) -> Report:
    return reports.CASES[request.param]()


# --- words


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (24.1, "ms", "24.1 ms"), (1640.0, "ms", "1.64 s"), (0.061, "ms", "61 µs"),
        (999.7, "ms", "1 s"), (35.4e6, "bytes", "35.4 MB"), (512, "bytes", "512 B"),
        (9.4e9, "bytes/s", "9.4 GB/s"), (61000, "operations/s", "61 k operations/s"),
        (0.29, "%", "0.29 %"), (1790, "count", "1,790"), (0, "ms", "0 ms"),
    ],
)  # fmt: skip
def test_amounts_are_shown_in_the_unit_people_read(value: float, unit: str, shown: str) -> None:
    assert words.amount(value, unit) == shown


@pytest.mark.parametrize(
    ("unit", "better", "verdict", "said"),
    [
        ("ms", "lower", "higher", "8.0x slower (7.0-9.0)"),
        ("ms", "lower", "lower", "8.0x faster (7.0-9.0)"),
        ("bytes/s", "higher", "lower", "8.0x slower (7.0-9.0)"),
        ("bytes", "lower", "higher", "8.0x more (7.0-9.0)"),
        ("bytes", "lower", "no difference", "no difference"),
        ("ms", "lower", "too few samples", "too few samples"),
    ],
)
def test_words_of_comparison_follow_the_verdict(
    unit: str, better: str, verdict: str, said: str
) -> None:
    ratio = (8.0, 7.0, 9.0) if verdict == "higher" else (1 / 8, 1 / 9, 1 / 7)
    measure = Measure("k", "time", "T", unit, better, "", {})
    found = words.verdict(measure, Difference("vm", "container", *ratio, 0.001, verdict))
    assert found.translate(PLAIN) == said


def test_a_difference_is_the_same_from_either_side() -> None:
    told = Difference("vm", "container", 8.0, 7.0, 9.0, 0.01, "higher")
    measure = Measure("k", "time", "T", "ms", "lower", "", {}, differences=(told,))
    other = words.versus(measure, "container", "vm")
    assert other == Difference("container", "vm", 1 / 8, 1 / 9, 1 / 7, 0.01, "lower")
    assert words.versus(measure, "vm", "vm-boot") is None


def test_the_headline_says_what_was_tested() -> None:
    first, *rest = (each.translate(PLAIN) for each in headline.sentences(reports.full()))
    start = r"On this machine the container started [\d.]+ \([\d.]+-[\d.]+\) times faster than the "
    assert re.match(
        start + r"vm and \d+ \(\d+-\d+\) times faster than the fully booted vm\.", first
    )
    assert any(re.match(r"The container took [\d.]+ .* times less memory than", s) for s in rest)
    assert "Of 10 measures of work the vm did worse in 8; in 2 no difference was found." in rest


def test_where_it_was_only_tried_the_headline_counts_the_trials() -> None:
    full = reports.full()
    assert full.portability.trials
    only = replace(full, measures=(), isolation=Isolation())
    works = sum(trial.works for trial in full.portability.trials)
    said = f"It worked in {works} of {len(full.portability.trials)} trials."
    assert headline.sentences(only) == (said,)
    assert headline.sentences(replace(only, portability=Portability())) == (
        "Nothing could be measured.",
    )


@pytest.mark.parametrize("name", UNTESTED)
def test_without_a_tested_difference_no_form_is_called_better(name: str) -> None:
    report = reports.CASES[name]()
    shown = [*headline.sentences(report), terminal.render(report, 100), page.render(report)]
    assert shown[0]
    for text in shown:
        assert not COMPARED.search(re.sub(r"<[^>]*>", "", text).translate(PLAIN))


# --- the page


class Reader(HTMLParser):
    """Checks that elements nest, and keeps what could run or load."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.scripts = 0
        self.faults: list[str] = []
        self.plots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given_ = dict(attrs)
        self.scripts += tag == "script"
        self.plots += tag == "svg" and (given_.get("class") or "").startswith("plot")
        if tag in {"img", "iframe", "object", "embed", "link", "image", "foreignobject", "form"}:
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in {"style", "src", "srcdoc", "action", "xlink:href"}:
                self.faults.append(f"{name}={value}")
            if name == "href" and not (value or "").startswith("#"):
                self.faults.append(f"href={value}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> out of place")


def test_a_page_is_well_formed_and_nothing_in_it_runs_or_loads(case: Report) -> None:
    reader = Reader()
    reader.feed(page.render(case))
    assert (reader.faults, reader.open, reader.scripts) == ([], [], 1)


def test_hostile_texts_are_shown_and_stay_texts() -> None:
    text = page.render(reports.hostile())
    assert "&lt;script&gt;window.taken=1&lt;/script&gt;" in text
    assert not set(text) & {"\x1b", "\x07", "\x00", "\u202e"}
    shown = changes.page(replace(reports.changes(), unlike=(("<b>", "<i>", "</p>"),)))
    assert "&lt;b&gt;" in shown and "<b>" not in shown.partition("Also different")[2][:900]


def test_every_sample_is_drawn_where_it_lies() -> None:
    report = reports.full()
    measure = next(m for m in report.measures if m.key == "time.first-output.cold")
    drawn = distributions.draw("p", measure, looks(report.forms)) or ""
    scale = axis([v for values in measure.samples.values() for v in values])
    assert scale.log  # from 88 ms to 2.2 s
    for slot, values in enumerate(measure.samples.values()):
        dots = re.findall(rf'class="dot f{slot}" cx="([\d.]+)%"', drawn)
        assert [float(dot) for dot in dots] == [round(scale.at(v), 2) for v in values]


def test_a_bar_of_parts_adds_up() -> None:
    report = reports.full()
    drawn = memory.draw("p", "t", report.memory, looks(report.forms)) or ""
    for slot, parts in ((0, report.memory["container"]), (1, report.memory["vm"])):
        widths = re.findall(rf'width="([\d.]+)%" fill-opacity="[\d.]+" class="part f{slot}', drawn)
        top = max(sum(p.bytes for p in each) for each in report.memory.values())
        assert sum(map(float, widths)) == pytest.approx(
            100 * sum(p.bytes for p in parts) / top, abs=0.1
        )


def test_what_does_not_fit_a_ledger_is_summed() -> None:
    part = reports.full().ledgers["vm"][0]
    parts = [replace(part, name=str(n), bytes=n) for n in range(1, 40)]
    shown = ledger.largest(parts, 12)
    assert len(shown) == 12 and sum(p.bytes for p in shown) == sum(range(1, 40))
    assert shown[-1].name == "28 smaller"


def test_a_radar_without_enough_axes_is_not_drawn() -> None:
    cast = looks(reports.FORMS)
    assert radar.draw("p", {"vm": {"sight": 10.0, "total": 10.0}}, cast) is None
    assert radar.draw("p", {"vm": {"sight": 10.0, "escapes": 0, "devices": 1}}, cast)


@given(some.lists(some.floats(-1e9, 1e12, allow_nan=False), min_size=1, max_size=30))
def test_an_axis_holds_its_values_in_order(values: list[float]) -> None:
    scale = axis(values)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places) and places[0] >= 0 and places[-1] <= 100
    ticks = scale.ticks()
    assert len(ticks) <= 8 and all(scale.low <= t <= scale.high for t in ticks[1:-1])


@given(some.lists(some.floats(0, 1e6), min_size=2, max_size=40))
def test_quartiles_are_those_of_a_known_library(values: list[float]) -> None:
    expected = statistics.quantiles(values, n=4, method="inclusive")
    assert distributions.quartiles(tuple(values)) == pytest.approx(tuple(expected))


# --- colours


def _light(colour: str) -> tuple[float, float, float]:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
                        for c in channels)  # fmt: skip
    return red, green, blue


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""
    levels = [sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), _light(x), strict=True)) + 0.05
              for x in (one, other)]  # fmt: skip
    return max(levels) / min(levels)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_what_they_lie_on(theme: int) -> None:
    colours = {name: both[theme] for name, both in palette.COLOURS.items()}
    for ground in ("card", "ground"):
        for name in ("ink", "quiet", "link", "alarm", *palette.FORMS):
            assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in palette.FORMS:
        assert _contrast(colours["on-form"], colours[name]) >= 4.5, name


# What people without green (deuteranopia) and without red (protanopia) cones see of linear light:
# Viénot, Brettel, Mollon 1999.
SIGHTS = {
    "deuteranopia": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
    "protanopia": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
}  # fmt: skip


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_the_usual_forms_are_told_apart_by_whoever_looks(sight: str, theme: int) -> None:
    rows = SIGHTS[sight]
    seen = {}
    for name in ("f0", "f1", "f2"):
        light = _light(palette.COLOURS[name][theme])
        level = (sum(w * c for w, c in zip(row, light, strict=True)) for row in rows)
        seen[name] = [max(each, 0.0) ** (1 / 2.2) for each in level]
    for one, other in itertools.combinations(seen, 2):
        assert math.dist(seen[one], seen[other]) > 0.2, (one, other)


# --- the terminal


@pytest.mark.parametrize("width", [40, 60, 80, 132])
def test_no_line_is_wider_than_the_terminal(case: Report, width: int) -> None:
    for text in (terminal.render(case, width), changes.render(reports.changes(), width)):
        assert max(map(len, text.split("\n"))) <= width


def test_a_terminal_shows_text_and_its_own_colours_only(case: Report) -> None:
    plain, coloured = terminal.render(case, 90), terminal.render(case, 90, colour=True)
    assert re.sub(r"\033\[[\d;]+m", "", coloured) == plain
    assert all(char == "\n" or char.isprintable() for char in plain)


def test_a_terminal_shows_figures_verdicts_evidence_and_what_was_left_out() -> None:
    text = terminal.render(reports.full(), 100).translate(PLAIN)
    row = r"Host memory of one, idle +4\.85 MB \([\d.-]+\) +35\.3 MB \([\d.-]+\)\n +7\.3x more\n"
    assert re.search(row, text)
    assert re.search(r"total +75 +94\n", text)
    assert "◆ closed    all are answered by the guest's kernel" in text
    assert "kvm: this host has none" in text and "Measuring took at most 0.4 ms" in text


def test_changes_beyond_noise_are_told_apart_from_the_rest() -> None:
    found = reports.changes()
    assert changes.headline(found).startswith("Of 39 figures 5 changed beyond noise: 3 for the wor")
    text = changes.render(found, 100)
    assert "Changed for the worse" in text and "qemu: 7.2.11 → 7.2.22" in text
    calm = replace(found, measures=tuple(replace(m, verdict="no difference")
                                         for m in found.measures))  # fmt: skip
    assert changes.headline(calm) == "Of 46 figures none changed beyond noise."
    assert not COMPARED.search((changes.render(calm) + changes.page(calm)).translate(PLAIN))


# --- progress


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_on_a_terminal_is_one_line_that_fits() -> None:
    stream, clock = io.StringIO(), Clock()
    with terminal.Progress(stream, live=True, width=60, clock=clock) as progress:
        progress.expect(8)
        progress.begin("start, warm: " + "x" * 200)
        for _ in range(4):
            clock.now += 5
            progress.step()
        progress.note("no kvm here\x1b[2J")
    shown = stream.getvalue()
    assert progress.line().endswith("about 0:20 left") and len(progress.line()) < 60
    assert "━━━━━━━━╌╌╌╌╌╌╌╌ 4/8" in shown and shown.endswith("\r\033[K")
    assert "proa: no kvm here [2J\n" in shown
    assert all(len(part) < 60 for part in re.split(r"[\r\n]|\033\[K", shown))


def test_progress_elsewhere_is_a_line_for_each_stage() -> None:
    stream = io.StringIO()
    with terminal.Progress(stream, live=False) as progress:
        progress.expect(3)
        for stage in ("sizes", "start: container", "start: container"):
            progress.begin(stage)
            progress.step()
    assert stream.getvalue() == "proa: sizes (0 of 3)\nproa: start: container (1 of 3)\n"


def test_nothing_is_guessed_before_enough_is_done() -> None:
    clock = Clock()
    progress = terminal.Progress(io.StringIO(), live=True, clock=clock)
    progress.expect(10)
    progress.begin("work")
    progress.step(3)
    assert "left" not in progress.line()
    assert words.estimate(Interval(5.0, 5.0, 5.0, 1), "ms") == "5 ms"


@pytest.mark.parametrize(("form", "other", "word"), [("vm", "container", "more"),
                                                     ("container", "vm", "less")])  # fmt: skip
def test_against_nothing_there_is_no_factor(form: str, other: str, word: str) -> None:
    """Ratios of what is 0 are 0 in a report: there are none."""
    told = Difference("vm", "container", 0.0, 0.0, 0.0, 0.001, "higher")
    measure = Measure("k", "size", "T", "bytes", "lower", "", {}, differences=(told,))
    assert words.verdict(measure, words.versus(measure, form, other)) == word


def test_a_form_that_is_there_twice_is_told_apart() -> None:
    again = replace(reports.FORMS[0], key="container-2", title="Container (2)")
    cast = looks((reports.FORMS[0], again))
    assert [look.noun for look in cast.values()] == ["container", "container 2"]
    assert len({look.slot for look in cast.values()}) == 2
