"""Pages of comparisons in a real browser: nothing overflows, nothing runs that should not, all of
it can be read by whoever reads it.  Screenshots and prints are kept in build/artefacts."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proa.compare.report import changes, page
from tests.conftest import need
from tests.support import browser as browsers
from tests.support import reports
from tests.support.browser import Browser
from tests.support.paths import ROOT

ARTEFACTS = ROOT / "build" / "artefacts"
CONTRAST = (ROOT / "tests" / "support" / "contrast.js").read_text()
WIDTHS = (360, 768, 1280)
THEMES = ("light", "dark")
TABS = 12
PAPER = 690  # pixels between the margins of A4
AXE_RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all pages."""
    selenium = importlib.util.find_spec("selenium")
    need(browsers.CHROMIUM and browsers.DRIVER and selenium, "browser",
         "pages are looked at with chromium, chromedriver and selenium")  # fmt: skip
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    with browsers.browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every made-up report as a file."""
    folder = tmp_path_factory.mktemp("pages")
    made = {name: page.render(make()) for name, make in reports.CASES.items()}
    made["changes"] = changes.page(reports.changes())
    written = {}
    for name, text in made.items():
        written[name] = folder / f"{name.replace(' ', '-')}.html"
        written[name].write_text(text)
    return written


@pytest.fixture(autouse=True)
def usual(shown: Browser) -> None:
    """Every test begins with a desktop, by day."""
    shown.prefer("light")
    shown.resize(1280)


def wider_than_page(shown: Browser) -> Any:
    """What reaches beyond the right edge, outside what scrolls by itself."""
    return shown.ask(
        "const edge = document.documentElement.clientWidth + 1;"
        "if (document.documentElement.scrollWidth <= edge) return [];"
        "return [...document.body.querySelectorAll('*')].filter((e) => !e.closest('.scroll')"
        " && e.getBoundingClientRect().right > edge)"
        ".map((e) => `${e.tagName} ${e.getAttribute('class')}`).slice(0, 9)"
    )


@pytest.mark.parametrize("name", [*reports.CASES, "changes"])
def test_no_width_overflows_and_the_console_stays_empty(
    shown: Browser, pages: dict[str, Path], name: str
) -> None:
    shown.said()
    shown.open(pages[name])
    for width in WIDTHS:
        shown.resize(width)
        assert wider_than_page(shown) == [], width
    assert shown.said() == []


def test_pictures_are_kept_of_every_width_and_theme(shown: Browser, pages: dict[str, Path]) -> None:
    for name, widths in (("full", WIDTHS), ("changes", WIDTHS[:1])):
        shown.open(pages[name])
        for theme in THEMES:
            shown.prefer(theme)
            for width in widths:
                shown.resize(width)
                target = ARTEFACTS / f"report-{name}-{width}-{theme}.png"
                shown.shoot(target)
                assert target.read_bytes().startswith(b"\x89PNG") and target.stat().st_size > 20_000


@pytest.mark.parametrize("theme", THEMES)
def test_all_text_stands_out_from_what_it_lies_on(
    shown: Browser, pages: dict[str, Path], theme: str
) -> None:
    for name in ("full", "changes"):
        shown.prefer(theme)
        shown.open(pages[name])
        shown.ask("for (const each of document.querySelectorAll('details')) each.open = true")
        texts, faults = shown.ask(CONTRAST)
        assert faults == [] and texts > 50


def images(shown: Browser) -> list[dict[str, Any]]:
    """What a screen reader is told of the page's pictures."""
    nodes = shown.tell("Accessibility.getFullAXTree")["nodes"]
    return [n for n in nodes if not n["ignored"] and n["role"]["value"] in {"image", "img"}]


@pytest.mark.parametrize("scripts", [True, False], ids=["with-scripts", "without-scripts"])
def test_every_plot_is_told_in_words(shown: Browser, pages: dict[str, Path], scripts: bool) -> None:
    text = pages["full"].read_text()
    shown.scripts(scripts)
    try:
        shown.open(pages["full"])
        shown.tell("Accessibility.enable")
        # What is folded is told when it is unfolded.
        document = shown.tell("DOM.getDocument")["root"]["nodeId"]
        for each in shown.tell("DOM.querySelectorAll", nodeId=document, selector="details")[
            "nodeIds"
        ]:
            shown.tell("DOM.setAttributeValue", nodeId=each, name="open", value="")
        found = images(shown)
        plots = len(re.findall(r'<svg class="plot', text))
        assert len(found) == plots > 15
        for image in found:
            name, description = image["name"]["value"], image["description"]["value"]
            assert len(name) > 10 and len(description) > 30, name
    finally:
        shown.tell("Accessibility.disable")
        shown.scripts(True)


def test_nothing_is_asked_of_a_network_and_nothing_hostile_runs(
    shown: Browser, pages: dict[str, Path]
) -> None:
    shown.asked_for()
    shown.open(pages["hostile"])
    for event in ("load", "error", "click"):
        tell = "for (const e of document.querySelectorAll('*')) e.dispatchEvent(new Event({}))"
        shown.ask(tell.format(f"'{event}'"))
    assert shown.ask("return window.taken === undefined && document.images.length === 0")
    assert shown.asked_for() == [pages["hostile"].as_uri()]


def test_the_policy_stops_a_script_that_came_through(shown: Browser, tmp_path: Path) -> None:
    """Were something ever not escaped, it would not run."""
    text = page.render(reports.full())
    torn = tmp_path / "torn.html"
    torn.write_text(text.replace("</main>", "<script>window.taken=1</script></main>", 1))
    shown.open(torn)
    assert shown.ask("return window.taken === undefined")
    assert any("Content Security Policy" in line for line in shown.said())


def test_without_scripts_the_page_is_whole(shown: Browser, pages: dict[str, Path]) -> None:
    shown.open(pages["full"])
    with_scripts = shown.tell("Page.getLayoutMetrics")["cssContentSize"]
    shown.scripts(False)
    try:
        shown.open(pages["full"])
        without = shown.tell("Page.getLayoutMetrics")["cssContentSize"]
        assert without == with_scripts
        shown.print(ARTEFACTS / "report-full-without-scripts.pdf")
    finally:
        shown.scripts(True)
    printed = (ARTEFACTS / "report-full-without-scripts.pdf").read_bytes()
    assert printed.startswith(b"%PDF")


def test_paper_shows_what_is_folded_in_dark_ink(shown: Browser, pages: dict[str, Path]) -> None:
    shown.prefer("dark", media="print")
    shown.open(pages["full"])
    folded = shown.ask(
        "return [...document.querySelectorAll('.folded')]"
        ".filter((e) => !e.checkVisibility({contentVisibilityAuto: true})).length"
    )
    assert folded == 0
    assert shown.ask("return getComputedStyle(document.body).color") == "rgb(27, 29, 33)"
    shown.resize(PAPER)
    assert shown.ask("return document.documentElement.scrollWidth") == PAPER
    shown.print(ARTEFACTS / "report-full.pdf")
    pdf = (ARTEFACTS / "report-full.pdf").read_bytes()
    assert len(re.findall(rb"/Type ?/Page\b", pdf)) > 5


def test_every_stop_of_the_tabulator_can_be_seen(shown: Browser, pages: dict[str, Path]) -> None:
    shown.open(pages["full"])
    shown.press("Tab")
    assert shown.ask("return document.activeElement.textContent") == "To the findings"
    assert shown.ask("return document.activeElement.getBoundingClientRect().left >= 0")
    for _ in range(TABS):
        shown.press("Tab")
        outline = shown.ask(
            "const s = getComputedStyle(document.activeElement);"
            "return [document.activeElement.tagName, s.outlineStyle, parseFloat(s.outlineWidth)]"
        )
        assert outline[0] != "BODY" and outline[1] == "solid" and outline[2] >= 2, outline


def test_the_theme_is_the_readers_choice(shown: Browser, pages: dict[str, Path]) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    shown.open(pages["full"])
    by_day = shown.ask(ground)
    shown.ask("document.querySelector('.theme').click()")
    assert shown.ask("return document.querySelector('.theme').textContent") == "Light"
    by_night = shown.ask(ground)
    assert by_night != by_day
    shown.prefer("dark")
    shown.ask("document.querySelector('.theme').click()")
    assert shown.ask(ground) == by_day


def test_values_are_shown_under_the_pointer(shown: Browser, pages: dict[str, Path]) -> None:
    shown.open(pages["full"])
    x, y = shown.ask_later(
        "const dot = [...document.querySelectorAll('#start > .cards .dot')].at(-1);"
        "dot.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const box = dot.getBoundingClientRect(), done = arguments[0];"
        "const place = [box.x + box.width / 2, box.y + box.height / 2];"
        "requestAnimationFrame(() => requestAnimationFrame(() => done(place)))"
    )
    shown.point(x, y)
    tip = shown.ask(
        "const tip = document.querySelector('.tip'); const box = tip.getBoundingClientRect();"
        "return [tip.hidden, tip.textContent, box.left >= 0, box.top >= 0]"
    )
    assert tip[0] is False and re.fullmatch(r"[\d.]+ m?s", tip[1]) and tip[2:] == [True, True]


def test_those_who_ask_for_rest_get_it(shown: Browser, pages: dict[str, Path]) -> None:
    shown.open(pages["full"])
    shown.prefer("light", motion="reduce")
    assert shown.ask("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    moving = "return document.getAnimations().length"
    assert shown.ask(moving) == 0


def test_axe_finds_nothing(shown: Browser, pages: dict[str, Path]) -> None:
    found = importlib.util.find_spec("axe_core_python")
    need(found and found.origin, "axe", "accessibility is checked with axe-core-python")
    assert found and found.origin
    axe = (Path(found.origin).parent / "axe.min.js").read_text()
    for name in ("full", "changes"):
        shown.open(pages[name])
        shown.ask(axe)
        violations = shown.ask_later(
            "const done = arguments[0];"
            f"axe.run({{runOnly: {list(AXE_RULES)}}}).then((r) => done(r.violations.map("
            "(v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html).join(' ')}`)))"
        )
        assert violations == [], name
