"""All answers of one form: asked inside, tried with a neighbour, looked at from the host."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from proa.compare import answers
from proa.compare.isolation import host, inquiries, shares, trials
from proa.compare.isolation.judging import JUDGES, Case
from proa.compare.probe import Probe
from proa.compare.record import Answer, Form
from proa.errors import ProaError

ALONE = "no neighbour was there"
Pair = Callable[[Probe, Probe], Answer]
PAIRS: dict[str, Pair] = {
    "sight.reach": trials.reach,
    "sight.cache": trials.cache,
    **{hog.key: partial(trials.exhaust, hog=hog) for hog in trials.HOGS},
}


def gather(probe: Probe, neighbour: Probe | None, form: Form) -> dict[str, Answer]:
    """Answers by key of `inquiries.ALL`, and by `shared.NAME` what is shared (see `shares`).

    Both are instances of the same form with `trials.LIMITS`.  Takes about 8 seconds, most of them
    for what the neighbour feels; a trial that fails is `not tried`.  Raises the probe's errors when
    it does not answer at all.
    """
    before = host.read()
    lines = {answers.text(line, "key"): line for line in probe.ask("isolation")}
    translated = bool(probe.instance.inspect().get("Proa", {}).get("EmulatedBy"))
    case = Case(lines, before, host.read(), main_process(probe), translated)
    found = {
        inquiry.key: JUDGES[inquiry.judge](case, inquiry.key)
        for inquiry in inquiries.ALL
        if inquiry.key not in PAIRS
    }
    for key, trial in PAIRS.items():
        found[key] = tried(trial, probe, neighbour)
    return found | shares.find(shares.Ground(case, found, form, _pids(probe, neighbour)))


def tried(trial: Pair, probe: Probe, neighbour: Probe | None) -> Answer:
    """What came of a trial, or why there is nothing."""
    if neighbour is None:
        return Answer("not tried", ALONE, 0.0)
    try:
        return trial(probe, neighbour)
    except ProaError as error:
        return Answer("not tried", str(error), 0.0)


def main_process(probe: Probe) -> int:
    """The process the host runs for it: its own, or its machine."""
    return int(probe.instance.inspect()["State"].get("Pid") or 0)


def _pids(probe: Probe, neighbour: Probe | None) -> tuple[int, ...]:
    return tuple(main_process(one) for one in (probe, neighbour) if one is not None)
