"""Many vms at once: how fast a hundred are there, what they keep, what they cost while idle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import memory
from benchmarks.measure import Row
from benchmarks.peers import IMAGE
from tests.support.engine import EngineProcess
from tests.support.instances import Instance, Place

CLONES = 100
HANDS = 4  # clients that start at once
SETTLE_SECONDS = 5.0
WATCHED_SECONDS = 10.0
SMALL_VM_BYTES = 160 << 20  # what a machine of 256 MiB leaves to its instance
KEYS = {"density-start", "density-memory", "density-cpu"}
LIMITS = {
    f"{CLONES} clones started": 8.0,
    "qemu and monitor, idle clone (PSS)": 20 * 1024.0,
    f"{CLONES} idle clones": 30.0,
    f"{CLONES} paused clones": 0.5,
}


def rows(engine: EngineProcess) -> Iterator[Row]:
    """Start, weigh and watch them."""
    start = Row("density-start", f"{CLONES} vms of 256 MiB from nothing to running", [], unit="s")
    weight = Row("density-memory", f"host memory of each of {CLONES} idle vms", [], unit="KB")
    cost = Row("density-cpu", f"processor time of {CLONES} vms together", [], unit="% of a core")
    place = Place(engine.api, "vm")
    try:
        _start(place)  # the template, and the image's, are there from now on
        time.sleep(SETTLE_SECONDS)
        place.close()
        place.made.clear()
        began = time.monotonic()
        with ThreadPoolExecutor(HANDS) as hands:
            everyone = list(hands.map(lambda _: _start(place), range(CLONES)))
        start.samples[f"{CLONES} clones started"] = [time.monotonic() - began]
        yield start
        time.sleep(SETTLE_SECONDS)
        machines = [int(each.state()["Pid"]) for each in everyone]
        weight.samples["qemu and monitor, idle clone (PSS)"] = [_weight(pid) for pid in machines]
        yield weight
        cost.samples[f"{CLONES} idle clones"] = [processor_share(machines)]
        for each in everyone:
            each.api.call("POST", f"{each.path}/pause")
        cost.samples[f"{CLONES} paused clones"] = [processor_share(machines)]
        yield cost
    finally:
        place.close()


def _start(place: Place) -> Instance:
    return place.start(IMAGE, "sleep", "1000000", host={"Memory": SMALL_VM_BYTES})


def _weight(machine: int) -> float:
    parent = memory.ancestors(machine, memory.processes())[:1]
    return float(memory.pss_kilobytes([machine, *parent]))


def processor_share(machines: list[int]) -> float:
    """Percent of one processor that they take together."""
    before, began = sum(map(_spent_ns, machines)), time.monotonic()
    time.sleep(WATCHED_SECONDS)
    spent = sum(map(_spent_ns, machines)) - before
    return spent / 1e7 / (time.monotonic() - began)


def _spent_ns(pid: int) -> int:
    """Processor time of all threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)
