"""Words about samples: only when they are true, and in how many of a hundred runs they are not."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from proa.compare import rounds, statistics
from proa.compare.record import Measure
from proa.errors import ProaError

FORMS = ("a", "b")
RUNS = 100
MEASURES = 8

# What disturbs: (share of a value's logarithm kept by the next, spread, drift over the run,
# what coming second in a round costs, how often a spike comes).
DISTURBANCES = {
    "independent": (0.0, 0.05, 0.0, 0.0, 0.0),
    "autocorrelated": (0.9, 0.08, 0.0, 0.0, 0.0),
    "drift, position and spikes": (0.6, 0.08, 0.5, 0.15, 0.1),
}


def measure(key: str, samples: dict[str, tuple[float, ...]], group: str = "time") -> Measure:
    return Measure(f"{group}.{key}", group, key, "ms", "lower", "made up", samples)


def simulated(chance: random.Random, disturbance: str, count: int, effect: float = 1.0) -> Measure:
    """One measure of two forms in interleaved rounds; the second takes `effect` times as long."""
    keep, spread, drift, position, spikes = DISTURBANCES[disturbance]
    level = chance.gauss(0, spread)
    taken: dict[str, list[float]] = {form: [] for form in FORMS}
    orders = rounds.orders(FORMS, chance.randrange(1 << 30))
    for number, order in enumerate(itertools.islice(orders, count)):
        for place, form in enumerate(order):
            level = keep * level + chance.gauss(0, spread)
            spike = chance.expovariate(2) if chance.random() < spikes else 0.0
            value = 40 * math.exp(level + drift * number / count + position * place + spike)
            taken[form].append(value * (effect if form == "b" else 1.0))
    return measure(f"{chance.random()}", {form: tuple(values) for form, values in taken.items()})


def verdicts(measures: Sequence[Measure]) -> list[str]:
    return [d.verdict for m in statistics.differences(measures) for d in m.differences]


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_identical_forms_are_no_different_in_95_of_100_runs(
    disturbance: str,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 20)  # the intervals are not looked at
    silent = 0
    for seed in range(RUNS):
        chance = random.Random(f"{disturbance} {seed}")
        made = [simulated(chance, disturbance, rounds.MINIMUM) for _ in range(MEASURES)]
        silent += set(verdicts(made)) == {"no difference"}
    record_property("runs without a false word", silent)
    assert silent >= 95


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_the_test_keeps_its_level_without_the_help_of_a_least_effect(
    disturbance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MINIMUM_EFFECT", 0.0)
    monkeypatch.setattr(statistics, "RESAMPLES", 20)  # the intervals are not looked at
    silent = 0
    for seed in range(RUNS):
        chance = random.Random(f"level {disturbance} {seed}")
        made = [simulated(chance, disturbance, rounds.MINIMUM) for _ in range(MEASURES)]
        silent += set(verdicts(made)) == {"no difference"}
    assert silent >= 92  # 95 expected at worst; fewer than 92 of 100 come by chance in 1 of 9


def test_a_true_difference_is_found_through_the_noise() -> None:
    found = 0
    for seed in range(20):
        chance = random.Random(seed)
        same = [simulated(chance, "independent", 12) for _ in range(MEASURES)]
        slower = simulated(chance, "independent", 12, effect=1.3)
        *rest, word = verdicts([*same, slower])
        found += word == "higher" and set(rest) == {"no difference"}
    assert found >= 19


def test_what_is_less_than_the_least_effect_is_no_difference() -> None:
    near = measure("x", {"a": tuple(100 + n / 100 for n in range(30)),
                         "b": tuple(102 + n / 100 for n in range(30))})  # fmt: skip
    [found] = statistics.differences([near])
    [difference] = found.differences
    assert difference.p < 0.001
    assert difference.verdict == "no difference"
    assert 1.015 < difference.low <= difference.ratio <= difference.high < 1.025


def test_few_samples_cannot_be_judged_and_do_not_weigh_on_others() -> None:
    few = [measure(f"few{n}", {"a": (1.0, 1.1, 1.2), "b": (9.0, 9.1, 9.2)}) for n in range(200)]
    many = measure("many", {"a": tuple(range(10, 15)), "b": tuple(range(20, 25))})
    words = verdicts([*few, many])
    assert set(words[:-1]) == {"too few samples"}
    assert words[-1] == "higher"


def test_sizes_are_read_and_need_no_test() -> None:
    sizes = measure("disk", {"a": (100.0,), "b": (180.0,), "c": (100.0,)}, group="size")
    [found] = statistics.differences([sizes])
    assert [(d.form, d.other, d.verdict) for d in found.differences] == [
        ("b", "a", "higher"), ("c", "a", "no difference"),
    ]  # fmt: skip
    assert found.intervals["b"].low == found.intervals["b"].high == 180.0


def test_equal_values_are_tested_by_permutation() -> None:
    ties = measure("ties", {"a": (1.0,) * 5 + (2.0,) * 3, "b": (3.0,) * 4 + (4.0,) * 4})
    same = measure("same", {"a": (0.0,) * 8, "b": (0.0,) * 8})
    assert verdicts([ties, same]) == ["higher", "no difference"]


def test_a_form_without_samples_is_left_out() -> None:
    one = measure("one", {"a": (), "b": (1.0,) * 8, "c": tuple(float(n) for n in range(50, 58))})
    [found] = statistics.differences([one])
    assert [(d.form, d.other) for d in found.differences] == [("c", "b")]
    assert "a" not in found.intervals
    assert statistics.differences([replace(one, samples={"a": ()})])[0].differences == ()


def test_intervals_hold_the_median_and_repeat() -> None:
    chance = random.Random(7)
    samples = [chance.lognormvariate(3, 0.2) for _ in range(20)]
    found = statistics.interval(samples, 0.95, "seed")
    assert found.low < found.median < found.high
    assert found == statistics.interval(samples, 0.95, "seed")
    assert statistics.interval(samples, 0.5).high < found.high
    with pytest.raises(ProaError):
        statistics.interval([])


def test_an_interval_covers_the_true_median_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        chance = random.Random(seed)
        found = statistics.interval([chance.gauss(10, 1) for _ in range(15)], 0.95, str(seed))
        covered += found.low <= 10 <= found.high
    assert covered >= 180  # percentile intervals of few samples are a little short


def test_holm_steps_down_and_tarone_leaves_out_the_hopeless() -> None:
    assert statistics.holm({0: 0.01, 1: 0.04, 2: 0.03}) == pytest.approx(
        {0: 0.03, 2: 0.06, 1: 0.06}
    )
    assert statistics.testable({0: 0.2, 1: 0.001, 2: 0.002}, 0.05) == [1, 2]
    assert statistics.testable({0: 0.2}, 0.05) == []
    assert statistics.attainable(3, 3) == 0.1


# -- rounds ----------------------------------------------------------------------------------------


def test_orders_repeat_by_seed_and_are_balanced() -> None:
    forms = ("container", "vm", "vm-boot")
    made = list(itertools.islice(rounds.orders(forms, 5), 20))
    assert made == list(itertools.islice(rounds.orders(forms, 5), 20))
    assert all(sorted(order) == sorted(forms) for order in made)
    assert len(set(made)) > 2
    for first, second in zip(made[::2], made[1::2], strict=True):
        assert first == second[::-1]


@pytest.mark.parametrize(
    ("values", "round_seconds", "left_seconds", "wanted"),
    [
        ((10.0, 10.1, 9.9, 10.0), 1.0, 100.0, rounds.MINIMUM),  # steady
        ((10.0, 13.0, 9.0, 11.0), 1.0, 100.0, 18),  # wide, and there is time
        ((10.0, 13.0, 9.0, 11.0), 1.0, 6.0, 10),  # wide, and there is none
        ((10.0, 90.0, 1.0, 12.0), 0.01, 100.0, rounds.MAXIMUM),
        ((10.0, 90.0, 1.0, 12.0), 9.0, 0.0, rounds.MINIMUM),
    ],
)
def test_the_number_of_rounds_follows_width_and_time(
    values: tuple[float, ...], round_seconds: float, left_seconds: float, wanted: int
) -> None:
    samples = {"time.exec": {"a": values, "b": (5.0, 5.0, 5.0, 5.0)}}
    assert rounds.enough(samples, 0.95, round_seconds, left_seconds) == wanted


def test_the_number_of_rounds_does_not_know_how_forms_differ() -> None:
    near = {"m": {"a": (10.0, 11.0, 12.0, 11.0), "b": (10.0, 11.0, 12.0, 11.0)}}
    far = {"m": {"a": (10.0, 11.0, 12.0, 11.0), "b": (100.0, 110.0, 120.0, 110.0)}}
    assert rounds.enough(near, 0.95, 1, 99) == rounds.enough(far, 0.95, 1, 99)
