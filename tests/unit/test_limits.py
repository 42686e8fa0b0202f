"""Limits in Docker's words, updates of them, lists of processors, promises."""

from __future__ import annotations

from typing import Any

import pytest

from proa.engine import admission, limits
from proa.engine.fields import Fields
from proa.errors import Invalid
from proa.host.cpus import numbers
from proa.spec import Hardware, Limits, Process, Spec, Throttle

MIB = 1 << 20


def parse(**host: Any) -> Limits:
    """The limits of a HostConfig."""
    return limits.limits(Fields(host))


def test_processors_by_quota_and_period() -> None:
    assert parse(CpuQuota=25_000, CpuPeriod=50_000).cpus == 0.5
    assert parse(CpuQuota=150_000).cpus == 1.5
    with pytest.raises(Invalid, match="Conflicting"):
        parse(NanoCpus=10**9, CpuQuota=1)


@pytest.mark.parametrize(
    "host",
    [
        {"Memory": 1 << 20}, {"MemorySwap": 64 * MIB},
        {"Memory": 64 * MIB, "MemorySwap": 32 * MIB},
        {"Memory": 64 * MIB, "MemoryReservation": 65 * MIB}, {"CpuPeriod": 5},
        {"BlkioWeight": 9}, {"BlkioWeight": 1001}, {"CpusetCpus": "1,,2"}, {"CpusetMems": "-"},
        {"BlkioDeviceReadBps": [{"Path": "sda", "Rate": 1}]},
        {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": -1}]},
    ],
)  # fmt: skip
def test_what_is_refused(host: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse(**host)


def test_an_update_changes_what_it_names() -> None:
    present = parse(
        Memory=64 * MIB, NanoCpus=10**9, CpusetCpus="0",
        BlkioDeviceReadBps=[{"Path": "/dev/a", "Rate": 1}],
        BlkioDeviceWriteBps=[{"Path": "/dev/a", "Rate": 2}],
    )  # fmt: skip
    wanted = parse(CpuQuota=5_000, CpuPeriod=10_000,
                   BlkioDeviceReadBps=[{"Path": "/dev/a", "Rate": 0}])  # fmt: skip
    changed = limits.updated(wanted, present)
    assert (changed.memory_bytes, changed.cpuset) == (64 * MIB, "0")
    assert (changed.cpus, changed.cpu_period_us) == (0.5, 10_000)
    assert Throttle("read_bps", "/dev/a", 0) in changed.throttles
    assert limits.lifted(changed).throttles == (Throttle("write_bps", "/dev/a", 2),)


def test_memory_does_not_outgrow_the_swap_that_was_asked() -> None:
    present = parse(Memory=64 * MIB, MemorySwap=128 * MIB)
    with pytest.raises(Invalid, match="memoryswap"):
        limits.updated(parse(Memory=256 * MIB), present)
    both = limits.updated(parse(Memory=256 * MIB, MemorySwap=256 * MIB), present)
    assert (both.memory_bytes, both.swap_bytes) == (256 * MIB, 256 * MIB)


def test_lists_of_numbers() -> None:
    assert numbers("0-2,5,1") == {0, 1, 2, 5}
    assert numbers("") == frozenset()
    for text in ("a", "1-", "-1", "3-1", "1,", "9" * 30, "0-99999"):
        with pytest.raises(Invalid):
            numbers(text)


def spec(wanted: Limits, disk: str = "") -> Spec:
    """A spec of these limits."""
    return Spec("i", "vm", Process(("true",)), "h", limits=wanted, hardware=Hardware(disk=disk))


def test_promises_are_what_was_asked_for() -> None:
    assert admission.promise(spec(Limits())).memory_bytes == 0
    assert admission.promise(spec(Limits(memory_bytes=8, cpus=2))) == admission.Promise(8, 2)
    assert admission.promise(spec(Limits(memory_bytes=8, reservation_bytes=5))).memory_bytes == 5
    assert admission.promise(spec(Limits(), "/disk.raw"), 256).memory_bytes == 256 * MIB


@pytest.mark.parametrize("table", [{"memory_overcommit": "2"}, {"x": 1}, {"cpu_overcommit": -1}])
def test_a_policy_that_is_not_understood(table: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="admission"):
        admission.Policy.parse(table)
