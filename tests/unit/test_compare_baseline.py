"""A report against an earlier one: what changed, what only seems to have."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from proa.compare import baseline, progress, statistics
from proa.compare.gathered import Gathered, place, started
from proa.compare.options import Options
from proa.compare.progress import Course, Progress
from proa.compare.record import Answer, Measure, Report
from proa.errors import Invalid
from tests.support import reports


def shifted(report: Report, key: str, factor: float) -> Report:
    """The report with one measure's samples multiplied, all of them a little shaken."""
    chance = random.Random(key)

    def shake(measure: Measure) -> Measure:
        by = factor if measure.key == key else 1.0
        exact = measure.group in statistics.EXACT_GROUPS
        samples = {
            form: tuple(
                value * by * (1 if exact else chance.uniform(0.99, 1.01)) for value in taken
            )
            for form, taken in measure.samples.items()
        }
        return replace(measure, samples=samples)

    return replace(report, measures=tuple(shake(measure) for measure in report.measures))


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 20)


def words(before: Report, now: Report) -> dict[tuple[str, str], str]:
    found = baseline.changes(before, now)
    return {
        (c.key, c.form): c.verdict for c in found.measures if c.verdict in ("lower", "higher")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "factor", "word"),
    [("time.exec.warm", 1.5, "higher"), ("work.cpu", 0.6, "lower"), ("size.disk", 1.2, "higher")],
)
def test_a_change_is_told_and_nothing_else(key: str, factor: float, word: str) -> None:
    before = reports.full()
    now = shifted(before, key, factor)
    [measure] = [measure for measure in now.measures if measure.key == key]
    assert words(before, now) == {(key, form): word for form in measure.samples}
    assert baseline.any_changed(baseline.changes(before, now))


def test_a_small_shift_is_no_change_however_sure() -> None:
    before = reports.full(count=30, forms=reports.FORMS[:2])
    assert words(before, shifted(before, "time.exec.warm", 1.07)) == {}
    assert not baseline.any_changed(baseline.changes(before, before))


def test_an_isolation_probe_that_answers_otherwise() -> None:
    before = reports.full()
    line, *rest = before.isolation.lines
    worse = replace(line, answers={**line.answers, "vm": Answer("open", "it answers now", 0.0)})
    now = replace(before, isolation=replace(before.isolation, lines=(worse, *rest)))
    found = baseline.changes(before, now)
    assert [(a.key, a.form, a.now.evidence) for a in found.answers] == [
        (line.key, "vm", "it answers now")
    ]
    assert baseline.any_changed(found)


def test_what_else_differs_is_listed() -> None:
    before = reports.full()
    now = replace(
        before, machine={**before.machine, "kernel": "7.0", "load": "9", "seed": "3"},
        subject=replace(before.subject, id="sha256:" + "00" * 32),
        forms=tuple(replace(form, start="spare 3") for form in before.forms),
    )  # fmt: skip
    named = {name for name, _, _ in baseline.changes(before, now).unlike}
    assert "kernel" in named and "image's id" in named and "start of VM from a template" in named
    assert not {"load", "seed"} & named


def test_forms_and_measures_of_one_report_only() -> None:
    before, now = reports.full(forms=reports.FORMS[:2]), reports.full()
    found = baseline.changes(before, now)
    assert [form.key for form in found.forms] == ["container", "vm"]
    assert any(one.why == "only in the later report" for one in found.left)
    assert {change.form for change in found.measures} == {"container", "vm"}


# -- options, progress, what is gathered -----------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": ("beauty",)},
        {"forms": ("vm",)},
        {"forms": ("vm",) * 7},
        {"confidence": 0.2},
        {"rounds": -1},
        {"density": 100_000},
    ],
)
def test_options_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        replace(Options("web"), **wrong).check()  # type: ignore[arg-type]


def test_what_is_left_is_only_said_when_it_can_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("proa.compare.progress.time.monotonic", lambda: now[0])
    told: list[Progress] = []
    course = Course(told.append)
    course.expect({"idle": 2, "isolation": 2})
    course.say("warming up")
    course.rounds = 5
    for number in range(1, 6):
        course.begin_round(number)
        course.say("a start")
        now[0] += 30.0 if number == 1 else 4.0  # the first one is slow
    course.end_rounds()
    course.part("isolation", "isolation")
    after = 2 * progress.USUAL_SECONDS["idle"] + 2 * progress.USUAL_SECONDS["isolation"]
    assert [one.left_seconds for one in told] == [
        None, None, None, 12 + after, 8 + after, 4 + after, after,
    ]  # fmt: skip
    assert [one.begins for one in told[1:6]] == [True] * 5


def test_measures_stand_in_the_order_of_a_start() -> None:
    found = Gathered()
    for condition in ("cold", "warm"):
        for milestone in ("exec", "place"):
            key, described = started(milestone, condition)
            found.described[key] = described
            found.add(key, "vm", 5.0)
    made = found.measures(["container", "vm"])
    assert [measure.key for measure in sorted(made, key=place)] == [
        "time.place.warm", "time.exec.warm", "time.place.cold", "time.exec.cold",
    ]  # fmt: skip
