"""What a form costs the host: memory, processor time of an idle one, how many there is room for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from proa.client.sdk import Instance
from proa.compare.fleet import Fleet
from proa.compare.forms import Way
from proa.compare.gathered import COSTS, Gathered
from proa.costs import Memory, Part
from proa.errors import ProaError

WINDOWS = 8
WINDOW_SECONDS = 0.5
SETTLE_SECONDS = 1.0
DENSITY_SECONDS = 8.0  # of starting, per form
RESERVE = 0.25  # of the host's memory that starting more leaves alone


@contextmanager
def idle(fleet: Fleet, way: Way, command: tuple[str, ...] | None) -> Iterator[Instance]:
    """A running instance that is asked nothing: the program itself, or where it would end (None),
    the probe, which waits for ever.  A machine stays by itself."""
    if command is None and way.image:
        with fleet.probe(way) as probe:
            yield probe.instance
        return
    instance = fleet.create(way, command or ())
    try:
        instance.start()
        yield instance
    finally:
        fleet.remove(instance)


def remember(memory: Memory, way: Way, gathered: Gathered) -> None:
    """Add one sample of memory."""
    for key, value in (
        ("cost.memory", memory.pss_bytes), ("cost.memory-private", memory.private_bytes),
    ):  # fmt: skip
        gathered.described[key] = COSTS[key]
        gathered.add(key, way.key, float(value))


def typical(found: Sequence[Memory]) -> tuple[Part, ...]:
    """The parts of the sample in the middle."""
    return sorted(found, key=lambda memory: memory.pss_bytes)[len(found) // 2].parts


def idle_processor(
    fleet: Fleet, ways: Sequence[Way], command: tuple[str, ...] | None, gathered: Gathered
) -> None:
    """Processor time in the same windows for an idle instance of every way."""
    gathered.described["cost.cpu"] = COSTS["cost.cpu"]
    with ExitStack() as stack:
        there: dict[str, Instance] = {}
        for way in ways:
            try:
                there[way.key] = stack.enter_context(idle(fleet, way, command))
            except ProaError as error:
                gathered.leave(f"idle processor time of {way.form.title}", error.message)
        time.sleep(SETTLE_SECONDS)
        before: dict[str, tuple[int, int]] = {}
        for window in range(WINDOWS + 1):
            if window:
                time.sleep(WINDOW_SECONDS)
            for way in [way for way in ways if way.key in there]:
                try:
                    now = _used(there[way.key])
                except ProaError as error:
                    gathered.leave(f"idle processor time of {way.form.title}", error.message)
                    del there[way.key]
                    continue
                if window:
                    then = before[way.key]
                    share = 100 * (now[0] - then[0]) / (now[1] - then[1])
                    gathered.add("cost.cpu", way.key, share)
                before[way.key] = now


def _used(instance: Instance) -> tuple[int, int]:
    """Processor time used, and when it was read; nanoseconds."""
    used = instance.memory().cpu_ns
    return used, time.monotonic_ns()


def density(
    fleet: Fleet, way: Way, command: tuple[str, ...] | None, limit: int, gathered: Gathered
) -> None:
    """Start more and more, up to `limit`, a time or a share of memory; add what each one took."""
    room = available()
    end = time.monotonic() + DENSITY_SECONDS
    totals: list[int] = []
    with ExitStack() as stack:
        there: list[Instance] = []
        while len(there) < limit:
            try:
                there.append(stack.enter_context(idle(fleet, way, command)))
                totals.append(sum(instance.memory().pss_bytes for instance in there))
            except ProaError as error:
                gathered.leave(f"more than {len(there)} of {way.form.title}", error.message)
                break
            if time.monotonic() > end or available() < room * RESERVE:
                break
    grown = [float(after - before) for before, after in pairwise(totals)]
    if not grown:
        return
    row = COSTS["cost.density"]
    gathered.described["cost.further"] = COSTS["cost.further"]
    for value in grown:
        gathered.add("cost.further", way.key, value)
    counts = {key: len(taken) + 1 for key, taken in gathered.samples["cost.further"].items()}
    started = ", ".join(f"{key} {count}" for key, count in counts.items())
    gathered.described["cost.density"] = replace(row, how=row.how.format(started=started))
    gathered.add("cost.density", way.key, float(int(room / max(median(grown), 1.0))))


def available() -> int:
    """Bytes of memory that can be had on this host (proc(5): MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
