"""Health checks of a machine whose system has no agent: they fail, or are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instances import Api, Instance, eventually
from tests.support.whole import Machines

MILLISECOND = 1_000_000


@pytest.fixture
def machines(api: Api) -> Iterator[Machines]:
    """Makes whole machines."""
    made = Machines(api, [])
    yield made
    for instance in made.made:
        instance.remove()


def checked(machines: Machines, **more: int) -> Instance:
    """A machine that finds nothing to boot, checked ten times a second."""
    asked = {"Test": ["CMD", "true"], "Interval": 100 * MILLISECOND, "Retries": 2} | more
    hardware = {"Disk": "empty", "DiskBytes": 64 << 20}
    config = {"Isolation": "vm", "Memory": 256 << 20}
    body: dict[str, Any] = {"HostConfig": config, "Proa": hardware, "Healthcheck": asked}
    return machines.create_body(body).start()


def health(machine: Instance) -> dict[str, Any]:
    """What is known of it."""
    return dict(machine.state()["Health"])


def test_where_nobody_answers_a_check_fails(machines: Machines) -> None:
    machine = checked(machines)
    eventually(lambda: health(machine)["Status"] == "unhealthy")
    last = health(machine)["Log"][-1]
    assert last["ExitCode"] == -1 and "no agent listens" in last["Output"]


def test_while_its_system_starts_that_does_not_count(machines: Machines) -> None:
    period = {"StartPeriod": 3_600_000 * MILLISECOND, "StartInterval": 100 * MILLISECOND}
    machine = checked(machines, **period)
    eventually(lambda: len(health(machine)["Log"]) == 5)
    assert (health(machine)["Status"], health(machine)["FailingStreak"]) == ("starting", 0)
