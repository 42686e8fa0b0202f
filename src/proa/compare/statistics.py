"""What may be said of samples: medians with intervals, and tests before any word.

The forms of a comparison are sampled in rounds, in an order that is shuffled in one round and
reversed in the next, so what drifts or disturbs falls on all of them alike.  A word (`lower`,
`higher`) needs three things: a two-sided Mann-Whitney test whose p, after Holm's correction over
all that is tested, is below 1 - confidence; medians that differ by `MINIMUM_EFFECT`; and enough
samples.  Pairs that could not reach significance with their number of samples, whatever these are,
are left out of the correction (Tarone 1990).  Everything is computed by scipy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proa.compare.record import Difference, Interval, Measure
from proa.errors import ProaError
from proa.host.libraries import need

CONFIDENCE = 0.95
MINIMUM_EFFECT = 0.05
RESAMPLES = 2000
EXACT_GROUPS = frozenset({"size"})  # read off, not sampled: there is no noise to test against
_PERMUTATIONS = 5_000
_EXTRA = "scipy (Debian: apt install python3-scipy)"


@dataclass(frozen=True)
class Pair:
    """Samples of one thing in two forms (or now and before); `seed` makes resampling repeatable."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    seed: str
    exact: bool = False


@dataclass(frozen=True)
class Judged:
    """What may be said of a pair: the fields of `Difference`, of ours against theirs."""

    ratio: float
    low: float
    high: float
    p: float
    verdict: str


def ready() -> None:
    """Raises Unsupported when the library is missing, before anything was measured in vain."""
    need("scipy.stats", "comparing", _EXTRA)


def interval(samples: Sequence[float], confidence: float = CONFIDENCE, seed: str = "") -> Interval:
    """The median with its bootstrap interval; samples that are all the same have none.

    Raises ProaError for no samples.
    """
    if not samples:
        raise ProaError("there is no median of no samples")
    middle = median(samples)
    if len(set(samples)) == 1:
        return Interval(middle, middle, middle, len(samples))
    found = _bootstrap((samples,), _medians, confidence, seed)
    return Interval(middle, *found, len(samples))


def median(samples: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    return float(need("numpy", "comparing", _EXTRA).median(samples))


def judge(pairs: Sequence[Pair], confidence: float = CONFIDENCE) -> list[Judged]:
    """What may be said of each pair, all of them taken together."""
    alpha = 1.0 - confidence
    sampled = [n for n, pair in enumerate(pairs) if not pair.exact and pair.ours and pair.theirs]
    least = {n: attainable(len(pairs[n].ours), len(pairs[n].theirs)) for n in sampled}
    chosen = testable(least, alpha)
    corrected = holm({n: _test(pairs[n]) for n in chosen})
    return [_judged(pair, corrected.get(n), alpha) for n, pair in enumerate(pairs)]


def differences(measures: Iterable[Measure], confidence: float = CONFIDENCE) -> tuple[Measure, ...]:
    """The measures with intervals, and every form judged against the first that has samples."""
    measures = tuple(measures)
    rows = [
        (measure.key, form, other, _pair(measure, form, other))
        for measure in measures
        for other, *forms in [[key for key, taken in measure.samples.items() if taken] or [""]]
        for form in forms
    ]
    judged = judge([pair for *_, pair in rows], confidence)
    by_key: dict[str, list[Difference]] = {}
    for (key, form, other, _), said in zip(rows, judged, strict=True):
        found = Difference(form, other, said.ratio, said.low, said.high, said.p, said.verdict)
        by_key.setdefault(key, []).append(found)
    return tuple(
        replace(
            measure,
            intervals=intervals(measure, confidence),
            differences=tuple(by_key.get(measure.key, ())),
        )
        for measure in measures
    )


def intervals(measure: Measure, confidence: float) -> dict[str, Interval]:
    """The interval of every form that has samples."""
    return {
        form: interval(samples, confidence, f"{measure.key} {form}")
        for form, samples in measure.samples.items()
        if samples
    }


def attainable(ours: int, theirs: int) -> float:
    """The smallest p a two-sided rank test of so many samples can come to."""
    return min(1.0, 2.0 / math.comb(ours + theirs, ours))


def testable(least: Mapping[int, float], alpha: float) -> list[int]:
    """Those that could be significant once corrected for their own number (Tarone)."""
    for count in range(1, len(least) + 1):
        chosen = [n for n, p in least.items() if p <= alpha / count]
        if len(chosen) <= count:
            return chosen
    return []


def holm(found: Mapping[int, float]) -> dict[int, float]:
    """p corrected for how many there are: step down, never decreasing, at most 1."""
    corrected: dict[int, float] = {}
    worst = 0.0
    for rank, n in enumerate(sorted(found, key=lambda n: found[n])):
        worst = max(worst, min(1.0, (len(found) - rank) * found[n]))
        corrected[n] = worst
    return corrected


def _pair(measure: Measure, form: str, other: str) -> Pair:
    ours, theirs = tuple(measure.samples[form]), tuple(measure.samples[other])
    seed = f"{measure.key} {form} {other}"
    return Pair(ours, theirs, seed, measure.group in EXACT_GROUPS)


def _judged(pair: Pair, p: float | None, alpha: float) -> Judged:
    if not pair.ours or not pair.theirs:
        return Judged(0.0, 0.0, 0.0, 1.0, "too few samples")
    ours, theirs = median(pair.ours), median(pair.theirs)
    ratio = ours / theirs if theirs else float(ours == theirs)  # 0: there is none
    low, high = _ratio_interval(pair, ratio, 1.0 - alpha)
    if p is None and not pair.exact:
        return Judged(ratio, low, high, 1.0, "too few samples")
    apart = abs(ours - theirs) >= MINIMUM_EFFECT * max(abs(ours), abs(theirs)) and ours != theirs
    word = "no difference"
    if apart and (p is None or p < alpha):
        word = "lower" if ours < theirs else "higher"
    return Judged(ratio, low, high, 0.0 if p is None and apart else 1.0 if p is None else p, word)


def _test(pair: Pair) -> float:
    """p of the two-sided Mann-Whitney test; by permutation when values are equal (ties)."""
    stats = need("scipy.stats", "comparing", _EXTRA)
    together = [*pair.ours, *pair.theirs]
    if len(set(together)) == 1:
        return 1.0
    if len(set(together)) == len(together):
        method = "exact" if len(together) <= 60 else "asymptotic"
        return float(stats.mannwhitneyu(pair.ours, pair.theirs, method=method).pvalue)
    ranks = stats.rankdata(together)
    halves = ranks[: len(pair.ours)], ranks[len(pair.ours) :]
    found = stats.permutation_test(
        halves, lambda a, b, axis=-1: a.mean(axis) - b.mean(axis),
        vectorized=True, n_resamples=_PERMUTATIONS, **_randomness(pair.seed),
    )  # fmt: skip
    return float(found.pvalue)


def _ratio_interval(pair: Pair, ratio: float, confidence: float) -> tuple[float, float]:
    if min(pair.theirs) <= 0 or len(set(pair.ours)) == len(set(pair.theirs)) == 1:
        return ratio, ratio
    samples = (pair.ours, pair.theirs)
    # A sample that is all the same gives a ratio of its own to every resample of the other.
    return _bootstrap(
        samples, lambda a, b, axis=-1: _medians(a, axis) / _medians(b, axis), confidence, pair.seed
    )


def _medians(values: Any, axis: int = -1) -> Any:
    return need("numpy", "comparing", _EXTRA).median(values, axis=axis)


def _bootstrap(
    samples: Sequence[Sequence[float]], statistic: Any, confidence: float, seed: str
) -> tuple[float, float]:
    stats = need("scipy.stats", "comparing", _EXTRA)
    if min(len(taken) for taken in samples) < 2:
        value = float(statistic(*samples))
        return value, value
    found = stats.bootstrap(
        samples, statistic, vectorized=True, method="percentile",
        n_resamples=RESAMPLES, confidence_level=confidence, **_randomness(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def _randomness(seed: str) -> dict[str, Any]:
    """The generator, by the name this scipy has for it (`rng` since 1.15)."""
    scipy = need("scipy", "comparing", _EXTRA)
    numpy = need("numpy", "comparing", _EXTRA)
    major, minor = (int(part) for part in scipy.__version__.split(".")[:2])
    name = "rng" if (major, minor) >= (1, 15) else "random_state"
    return {name: numpy.random.default_rng(zlib.crc32(seed.encode()))}
