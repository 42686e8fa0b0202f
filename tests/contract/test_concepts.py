"""The concept pages: every number is the kept reports', in both languages, and the figures too."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from proa.compare.record import Report
from tools import docs, docs_figures, docs_numbers

PAGES = sorted(docs.PAGES.glob("containers-and-vms*.md"))
WORDS = {"need", "machine", "release"}  # kinds whose words a language may have of its own
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    return docs.reports()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_are_the_reports(page: Path, reports: dict[str, Report]) -> None:
    text = page.read_text("utf-8")
    assert docs_numbers.marks(text), "nothing is measured in it"
    assert docs_numbers.fill(text, reports) == text, "run `make docs KEEP=1`"
    assert not list(docs_numbers.bare(text)), "a figure that no report stands for"
    assert not docs.private(text)


def test_both_languages_say_the_same() -> None:
    english, korean = (
        Counter(
            expression
            for expression in docs_numbers.marks((docs.PAGES / name).read_text("utf-8"))
            if expression.split()[1] not in WORDS
        )
        for name in ("containers-and-vms.md", "containers-and-vms.ko.md")
    )
    assert english == korean


def test_reports_name_nothing_private() -> None:
    kept = sorted(docs.FIGURES.glob("*.json"))
    assert {path.stem for path in kept} == set(docs.RUNS)
    for path in kept:
        assert not docs.private(path.read_text("utf-8")), path.name


def test_figures_stand_alone_and_are_the_reports(reports: dict[str, Report]) -> None:
    drawn = docs_figures.draw(reports[docs.DRAWN])
    kept = {path.stem: path.read_text("utf-8") for path in docs.FIGURES.glob("*.svg")}
    assert set(drawn) == set(kept) == set(docs_figures.FIGURES)
    for name, text in kept.items():
        figure, anew = ElementTree.fromstring(text), ElementTree.fromstring(drawn[name])
        said = [found.text for found in figure.iter(f"{SVG}desc")]
        assert said == [found.text for found in anew.iter(f"{SVG}desc")], f"{name}: redraw it"
        named = {found.get("id") for found in figure.iter()}
        assert all(said), name
        assert set((figure.get("aria-labelledby") or "").split()) <= named, name
        assert "prefers-color-scheme:dark" in text
        assert not re.search(r"<script|href=|url\((?!#)|\son\w+=", text), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_have_words(page: Path) -> None:
    shown = re.findall(r"!\[([^\]]*)\]\(figures/(\w+)\.svg\)", page.read_text("utf-8"))
    assert {name for _, name in shown} <= set(docs_figures.FIGURES)
    assert len(shown) >= 5
    assert all(len(words) > 15 for words, _ in shown)
