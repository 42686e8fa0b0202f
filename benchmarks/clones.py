"""Idle clones without engine, network and program: how many a machine has, how fast, at what cost.

What `density` starts has a program of a distribution too, which costs a multiple without KVM.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import memory
from benchmarks.density import CLONES, HANDS, SETTLE_SECONDS, processor_share
from benchmarks.first import RAM_MIB, make_host
from benchmarks.measure import Row
from proa.isolation.base import Running

KEYS = {"clones-start", "clones-memory", "clones-cpu"}
LIMITS = {
    f"{CLONES} idle clones up": 8.0,
    "private memory of an idle clone": 20 * 1024.0,
    f"{CLONES} clones that wait": 30.0,
}


def rows(root: Path) -> Iterator[Row]:
    """Start, weigh and watch them."""
    start = Row("clones-start", f"{CLONES} clones from nothing to init's answer", [], unit="s")
    weight = Row("clones-memory", f"host memory of each of {CLONES} idle clones", [], unit="KB")
    cost = Row("clones-cpu", f"processor time of {CLONES} clones", [], unit="% of a core")
    host = make_host(root)
    vms = host.vms(spares=0, image_templates=False, memory_mib=RAM_MIB)
    everyone: list[Running] = []
    try:
        vms.start(host.launch()).kill()  # the template is there from now on
        time.sleep(SETTLE_SECONDS)
        began = time.monotonic()
        with ThreadPoolExecutor(HANDS) as hands:
            everyone += hands.map(lambda _: vms.start(host.launch()), range(CLONES))
        start.samples[f"{CLONES} idle clones up"] = [time.monotonic() - began]
        yield start
        time.sleep(SETTLE_SECONDS)
        machines = [int(each.saved["pid"]) for each in everyone]
        private = [float(memory.private_kilobytes([pid])) for pid in machines]
        weight.samples["private memory of an idle clone"] = private
        weight.samples["with its share of the template (PSS)"] = [
            float(memory.pss_kilobytes([pid])) for pid in machines
        ]
        yield weight
        cost.samples[f"{CLONES} clones that wait"] = [processor_share(machines)]
        yield cost
    finally:
        for each in everyone:
            each.kill()
        vms.close()
        host.places.close()
        host.places.destroy()
