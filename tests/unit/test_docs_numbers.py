"""Numbers in pages: filled from reports, refused where a report does not bear out what is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proa.compare.record import Report
from proa.compare.report.words import CROSS
from tests.support import reports
from tools import docs_numbers

WEB = reports.full()
FOUND = {"web": WEB}


def told(*words: str) -> str:
    return docs_numbers.value(" ".join(("web", *words)), FOUND)


def test_a_page_is_filled_and_stays_so() -> None:
    page = "It takes <!--= web median cost.memory vm -->9 MB<!--/=--> and `5 MB` is code."
    filled = docs_numbers.fill(page, FOUND)
    measure = next(m for m in WEB.measures if m.key == "cost.memory")
    shown = f"{measure.intervals['vm'].median / 1e6:.1f} MB".replace(".0", "")
    assert filled == page.replace("9 MB", shown)
    assert docs_numbers.fill(filled, FOUND) == filled
    assert list(docs_numbers.bare(filled)) == []
    bare = ["20 MB", "1.5 GiB", "3 ms", f"4{CROSS}", "5 초", "6배", "7 %"]
    assert list(docs_numbers.bare(" and ".join(bare))) == bare


def test_what_is_claimed_must_be_found() -> None:
    measure = next(m for m in WEB.measures if m.key == "time.first-output.warm")
    assert float(told("ratio", measure.key, "vm", "container", "higher")) > 1
    with pytest.raises(docs_numbers.Untrue, match="higher, not lower"):
        told("ratio", measure.key, "vm", "container", "lower")
    untold = tuple(replace(d, verdict="no difference") for d in measure.differences)
    without = tuple(replace(m, differences=untold) if m is measure else m for m in WEB.measures)
    quiet: dict[str, Report] = {"web": replace(WEB, measures=without)}
    with pytest.raises(docs_numbers.Untrue, match="no difference, not higher"):
        docs_numbers.value(f"web ratio {measure.key} vm container higher", quiet)


@pytest.mark.parametrize(
    "words",
    ["median no.such vm", "median cost.memory submarine", "score vm sound", "guess cost.memory vm"],
)
def test_what_the_report_does_not_have(words: str) -> None:
    with pytest.raises(docs_numbers.Untrue):
        told(words)
    with pytest.raises(docs_numbers.Untrue, match="no report"):
        docs_numbers.value(f"other {words}", FOUND)


def test_kinds() -> None:
    assert told("date") == WEB.made[:10]
    assert told("machine", '"cpu model"') == "AMD EPYC 9R14"
    assert told("added").endswith("MB")
    assert told("trials", "all") == str(len(WEB.portability.trials))
