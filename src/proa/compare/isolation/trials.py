"""Trials that take two instances: what one takes and the other feels, reads and the other sees.

Everything is bounded, and gone with the process that took it.  The instances should be created with
`LIMITS`, so that forms are compared under the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proa.compare import answers
from proa.compare.isolation import host
from proa.compare.probe import Probe
from proa.compare.record import Answer
from proa.errors import Unsupported

MIB = 1 << 20
# HostConfig of the two: what a careful owner would give a small service.
LIMITS: Mapping[str, Any] = {"Memory": 64 * MIB, "PidsLimit": 256, "NanoCpus": 1_000_000_000}

DISK_BYTES = 24 * MIB
HOLD_MS, TRY_MS = 650, 3000
TRIES = 4  # while it seems to suffer: noise passes, what is felt stays
BEFORE = ("lead=250", "ms=200")
MEANWHILE = ("lead=150", "ms=250")
FELT, HARD = 0.5, 0.25  # share of its rate a neighbour keeps: above is noise, below is hardship
ROUNDS, APART = 7, 3  # of timing a page; times between one on disk and one in memory
UNLIMITED = 0.7  # nothing was felt, but no limit was met either


@dataclass(frozen=True)
class Hog:
    """Something to take: the probe's step, at most how much of what, and whether there are limits
    of an instance on it."""

    key: str
    step: str
    most: int
    unit: str
    limited: bool = True


HOGS = (
    Hog("exhaustion.cpu", "cpu", 1, "loops", limited=False),
    Hog("exhaustion.memory", "memory", 128 * MIB, "bytes"),
    Hog("exhaustion.files", "files", 20_000, "descriptors"),
    Hog("exhaustion.disk", "disk", DISK_BYTES, "bytes", limited=False),
    # The last: while it lasts, nothing else can be begun there.
    Hog("exhaustion.processes", "processes", 512, "processes"),
)


def exhaust(probe: Probe, neighbour: Probe, hog: Hog) -> Answer:
    """One takes, the other tells how it fares; asked again when it suffers, for noise passes."""
    limited, taken = False, 0.0
    if hog.limited:
        line = _step(probe, hog.step, f"most={hog.most}", f"ms={TRY_MS}", "hold=0")
        limited, taken = line.get("limited") is True, answers.number(line, "taken")
    kept, fell, whole = 0.0, 0.0, 0.0
    for _ in range(TRIES):
        before = _step(neighbour, "pulse", *BEFORE)
        probe.begin("isolation", "do", hog.step, f"most={hog.most}", f"ms={HOLD_MS}")
        meanwhile = _step(neighbour, "pulse", *MEANWHILE)
        rate = answers.number(meanwhile, "rate") if not meanwhile.get("failed") else 0.0
        kept = max(kept, rate / max(answers.number(before, "rate"), 1e-9))
        whole = answers.number(meanwhile, "all")
        fell = answers.number(before, "free") - answers.number(meanwhile, "free", -1)
        if kept >= FELT:
            break
    if hog.step == "disk":
        return _disk(kept, fell, whole)
    met = f"limit met at {taken:.0f} {hog.unit}" if limited else f"{taken:.0f} {hog.unit} taken"
    return _felt(kept, met if hog.limited else "", limited or not hog.limited)


def reach(probe: Probe, neighbour: Probe) -> Answer:
    """Whether the neighbour answers on the network."""
    try:
        address = neighbour.address
    except Unsupported:
        return Answer("closed", "neither has a network", 1.0)
    line = _step(probe, "reach", f"path={address}", "ms=700")
    said = answers.text(line, "said")
    if line.get("answers") is True:
        return Answer("open", f"{address}: {said}", 0.0)
    return Answer("closed", f"{address}: {said}", 1.0)


def cache(probe: Probe, neighbour: Probe) -> Answer:
    """Whether what one reads of the image is then in the other's memory, too."""
    path = answers.text(_step(probe, "find"), "path")
    if not path:
        return Answer("not tried", "the image has no file large enough", 0.0)
    pair = (probe, neighbour)
    came = by_mincore(pair, f"path={path}")
    came = by_time(pair, f"path={path}") if came is None else came
    if came is None:
        return Answer("not tried", f"{path} does not leave memory, or nothing tells", 0.0)
    if came:
        return Answer("open", f"{path} came to memory when a neighbour read it", 0.0)
    return Answer("closed", f"{path} was read by a neighbour and is not in its memory", 1.0)


def by_mincore(pair: tuple[Probe, Probe], word: str) -> bool | None:
    """By mincore, whether a page comes with the other's reading.  None when it does not tell: it
    must say that the page is gone when it was dropped, and there once the neighbour has read it."""

    def seen() -> bool:
        return answers.text(_step(pair[1], "look", word), "seen") == "yes"

    _dropped(pair, word)
    if seen():
        return None
    _step(pair[1], "load", word)
    if not seen():
        return None
    _dropped(pair, word)
    _step(pair[0], "load", word)
    return seen()


def by_time(pair: tuple[Probe, Probe], word: str) -> bool | None:
    """The same by time: three times nearer to what one in memory takes, or to what one on disk
    does.  None when there is too little between the two."""

    def took() -> float:
        return answers.number(_step(pair[1], "time", word), "ns", 1)

    near, far = 0, 0
    for _ in range(ROUNDS):
        _dropped(pair, word)
        gone, there = took(), took()
        _dropped(pair, word)
        _step(pair[0], "load", word)
        came = took() < math.sqrt(gone * there)
        if gone > APART * there:
            near, far = near + came, far + (not came)
        if max(near, far) >= 3:
            return near > far
    return None


def _dropped(pair: tuple[Probe, Probe], word: str) -> None:
    for one in pair:
        _step(one, "drop", word)


def _felt(kept: float, met: str, limited: bool) -> Answer:
    words = f"a neighbour keeps {_share(kept)} of its rate" + (f"; {met}" if met else "")
    if kept < HARD:
        return Answer("open", words, 0.0)
    if kept < FELT:
        return Answer("partly", words, 0.5)
    if not limited:
        return Answer("partly", f"{words}, no limit met", UNLIMITED)
    return Answer("closed", words, 1.0)


def _disk(kept: float, fell: float, whole: float) -> Answer:
    """A file system that is the host's is everybody's."""
    where = host.sizes().get(int(whole))
    if where is not None:
        share = f"its {whole / 1e9:.0f} GB are the host's file system at {where}"
        return Answer("open", f"{share}, where others write, too", 0.0)
    if fell > DISK_BYTES / 2:
        return Answer("open", f"a neighbour's free space fell by {fell / MIB:.0f} MiB", 0.0)
    felt = _felt(kept, "", limited=True)
    words = f"a file system of its own, {whole / 1e9:.0f} GB; {felt.evidence}"
    return Answer(felt.outcome, words, felt.score)


def _share(kept: float) -> str:
    """A rate in words coarse enough that noise does not change them."""
    bounds = ((0.9, "all"), (FELT, "most"), (HARD, "less than half"), (0.0, "little"))
    return next(words for bound, words in bounds if kept >= bound)


def _step(probe: Probe, *words: str) -> answers.Line:
    [line] = probe.ask("isolation", "do", *words)
    return line
