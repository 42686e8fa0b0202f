"""How many rounds, and in which order the forms come in each.  Pure.

The number is fixed before anything is tested: the first `PILOT` rounds say how long a round takes
and how wide each form's own values spread, never how the forms differ, so looking at them cannot
make a difference out of noise.  The order is shuffled by a recorded seed in every other round and
reversed in the one after it, so that each form comes early as often as late.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence

PILOT = 4
MINIMUM = 8  # with fewer, no difference could be told among as many measures as there are
MAXIMUM = 40
HALF_WIDTH = 0.10  # wanted of a median's interval, as a share of the median
_MEDIAN_SPREAD = 1.2533  # standard error of a median, in those of a mean (normal distribution)

Samples = Mapping[str, Mapping[str, Sequence[float]]]  # by measure, by form


def orders(forms: Sequence[str], seed: int) -> Iterator[tuple[str, ...]]:
    """The order of the forms, round by round, without end."""
    chance = random.Random(seed)
    while True:
        order = chance.sample(list(forms), len(forms))
        yield tuple(order)
        yield tuple(reversed(order))


def enough(samples: Samples, confidence: float, round_seconds: float, left_seconds: float) -> int:
    """How many rounds there shall be in all, an even number, judged by those that were made.

    `left_seconds` is what further rounds may take; `MINIMUM` are made however long they take.
    """
    made = max((len(s) for by_form in samples.values() for s in by_form.values()), default=0)
    wanted = max(
        (wanted_rounds(s, confidence) for by_form in samples.values() for s in by_form.values()),
        default=MINIMUM,
    )
    affordable = made + int(left_seconds / round_seconds) if round_seconds > 0 else MAXIMUM
    count = max(MINIMUM, min(wanted, affordable, MAXIMUM))
    return count + count % 2


def wanted_rounds(samples: Sequence[float], confidence: float) -> int:
    """How many values like these give a median's interval of `HALF_WIDTH`."""
    values = [math.log(value) for value in samples if value > 0]
    if len(values) < 3:
        return MINIMUM
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share = z * _MEDIAN_SPREAD * statistics.stdev(values) / math.log1p(HALF_WIDTH)
    return max(MINIMUM, min(math.ceil(share * share), MAXIMUM))
