"""Copies of a running vm: a fork beside a clone, how long its source stands still, suspending."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.measure import Budget, Row
from benchmarks.peers import IMAGE
from tests.support.engine import EngineProcess
from tests.support.instances import Instance, Place

ROUNDS = 10
REST_SECONDS = 0.5
SMALL_VM_BYTES = 160 << 20  # what a machine of 256 MiB leaves to its instance
KEYS = {"copies"}
FORK, CLONE = "fork of a running vm", "clone of a template, created and started"
PAUSE, SUSPEND, RESUME = "fork: its source stands still", "suspend to disk", "resume from disk"
LIMITS = {PAUSE: 100.0}


def rows(engine: EngineProcess) -> Iterator[Row]:
    """Clones, forks, suspending and resuming, in turn."""
    row = Row("copies", "copies of a running vm of 256 MiB", [], [Budget(FORK, (CLONE,), 2.0)])
    place = Place(engine.api, "vm")
    try:
        source = _start(place)
        time.sleep(REST_SECONDS)
        for _ in range(ROUNDS):
            _round(row, place, source)
        yield row
    finally:
        place.close()


def _round(row: Row, place: Place, source: Instance) -> None:
    def sample(name: str, value: float) -> None:
        row.samples.setdefault(name, []).append(value)

    began = time.monotonic()
    clone = _start(place)
    sample(CLONE, _since(began))
    clone.remove()
    time.sleep(REST_SECONDS)
    began = time.monotonic()
    made = _own(source, "fork")
    sample(FORK, _since(began))
    sample(PAUSE, made["PausedNanoseconds"] / 1e6)
    Instance(source.api, made["Instances"][0]["Id"]).remove()
    for name, verb in ((SUSPEND, "suspend"), (RESUME, "resume")):
        time.sleep(REST_SECONDS)
        began = time.monotonic()
        _own(source, verb)
        sample(name, _since(began))
    time.sleep(REST_SECONDS)


def _start(place: Place) -> Instance:
    script = "while :; do usleep 20000; done"
    return place.start(IMAGE, "sh", "-c", script, host={"Memory": SMALL_VM_BYTES})


def _own(instance: Instance, verb: str) -> Any:
    return instance.api.json("POST", f"/proa/instances/{instance.id}/{verb}")


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
