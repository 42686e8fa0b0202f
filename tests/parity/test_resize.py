"""More and less of the host for a running instance: the same request, whatever isolates it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support.engine import EngineProcess
from tests.support.http import ApiError
from tests.support.instances import Instance, Place, eventually

MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")


def update(instance: Instance, **resources: object) -> None:
    """POST /containers/{id}/update."""
    instance.api.call("POST", f"{instance.path}/update", dict(resources))


def cost(instance: Instance) -> int:
    """Bytes of the host's memory it takes."""
    usage = instance.api.json("GET", f"/proa/instances/{instance.id}/usage")
    return int(usage["memory_bytes"])


def cgroup_file(instance: Instance, controller: str, name: str) -> str:
    """A file of the instance's cgroup on the host, v1 or v2."""
    place = instance.inspect()["Proa"]["Place"]
    found = [*(CGROUPS / controller).glob(f"*/{place}/{name}"), *CGROUPS.glob(f"*/{place}/{name}")]
    need(found, "cgroup", f"this host has no '{name}'")
    return found[0].read_text().strip()


def root_disk(path: Path) -> str:
    """The whole disk a path's file system is on."""
    number = os.stat(path).st_dev
    part = Path("/sys/dev/block", f"{os.major(number)}:{os.minor(number)}")
    need(part.exists(), "disk", f"'{path}' is on no block device")
    disk = part.resolve().parent if (part / "partition").exists() else part.resolve()
    need(Path("/dev", disk.name).exists(), "disk", f"no '/dev/{disk.name}'")
    return f"/dev/{disk.name}"


def test_memory_grows_and_returns(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000", host={"Memory": 128 * MIB})
    assert instance.exec("/probe", "alloc", "300").code != 0
    update(instance, Memory=512 * MIB)
    assert instance.exec("/probe", "alloc", "300").stdout == "ok\n"
    assert instance.inspect()["HostConfig"]["Memory"] == 512 * MIB
    stats = instance.api.json("GET", f"{instance.path}/stats", stream=0)
    assert stats["memory_stats"]["limit"] == 512 * MIB
    grown = cost(instance)
    update(instance, Memory=128 * MIB)
    if place.isolation == "vm":
        assert eventually(lambda: cost(instance) < grown - 128 * MIB)
    assert instance.exec("/probe", "alloc", "300").code != 0


def test_what_a_vm_of_no_template_frees_returns_to_the_host(vm: Place) -> None:
    instance = vm.start("busy", "sleep", "1000", host={"Memory": 2200 * MIB})
    assert instance.inspect()["Proa"]["StartedBy"] == "boot"
    before = cost(instance)
    assert instance.exec("/probe", "alloc", "700").stdout == "ok\n"
    usage = instance.api.json("GET", f"/proa/instances/{instance.id}/usage")
    assert usage["memory_peak"] > before + 600 * MIB
    assert eventually(lambda: cost(instance) < before + 350 * MIB)


def test_processors_come_and_go(place: Place) -> None:
    need((os.cpu_count() or 1) > 1, "processors", "this host has one processor")
    instance = place.start("busy", "sleep", "1000", host={"NanoCpus": 1_000_000_000})
    before = instance.exec("nproc").stdout
    update(instance, NanoCpus=2_000_000_000)
    assert instance.exec("nproc").stdout == "2\n"
    update(instance, NanoCpus=1_000_000_000)
    assert instance.exec("nproc").stdout == before
    assert instance.inspect()["HostConfig"]["NanoCpus"] == 1_000_000_000


def test_pinned_to_a_processor(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000", host={"CpusetCpus": "0"})
    assert cgroup_file(instance, "cpuset", "cpuset.cpus") == "0"
    assert instance.exec("nproc").stdout == "1\n"
    update(instance, CpusetCpus="0-1" if (os.cpu_count() or 1) > 1 else "0")
    assert instance.exec("nproc").stdout == f"{min(2, os.cpu_count() or 1)}\n"


@pytest.mark.parametrize("text", ["9999", "1-", "x", "4000-4001"])
def test_processors_that_are_not_there_are_refused(place: Place, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        place.start("busy", "true", host={"CpusetCpus": text})
    assert caught.value.status == 400


def test_writing_is_throttled(place: Place, session_engine: EngineProcess) -> None:
    disk = root_disk(session_engine.root)
    throttle = [{"Path": disk, "Rate": MIB}]
    instance = place.start("busy", "sleep", "1000", host={"BlkioDeviceWriteBps": throttle})
    write = "dd if=/dev/zero of=/file bs=128k count=24 oflag=direct conv=fsync"
    started = time.monotonic()
    done = instance.exec("sh", "-c", write)
    assert done.code == 0, done.stderr
    assert time.monotonic() - started > 1.5  # 3 MiB at 1 MiB a second
    assert instance.inspect()["HostConfig"]["BlkioDeviceWriteBps"] == throttle
    update(instance, BlkioDeviceWriteBps=[{"Path": disk, "Rate": 0}])
    assert instance.inspect()["HostConfig"]["BlkioDeviceWriteBps"] == []
    assert str(MIB) not in cgroup_file(instance, "blkio", "blkio.throttle.write_bps_device")


def test_what_is_no_disk_cannot_be_throttled(place: Place) -> None:
    with pytest.raises(ApiError, match="not a block device"):
        throttle = [{"Path": "/dev/null", "Rate": MIB}]
        place.start("busy", "true", host={"BlkioDeviceReadBps": throttle})


def test_swap_below_memory_is_refused(place: Place) -> None:
    with pytest.raises(ApiError, match="memoryswap") as caught:
        place.create("busy", "true", host={"Memory": 64 * MIB, "MemorySwap": 32 * MIB})
    assert caught.value.status == 400


def test_docker_period_and_quota_are_kept(place: Place) -> None:
    host = {"CpuQuota": 25_000, "CpuPeriod": 50_000}
    instance = place.start("busy", "sleep", "1000", host=host)
    assert cgroup_file(instance, "cpu", "cpu.cfs_quota_us") == "25000"
    told = instance.inspect()["HostConfig"]
    assert (told["CpuQuota"], told["CpuPeriod"]) == (25_000, 50_000)


def test_what_the_host_cannot_hold_is_refused_with_the_sums(place: Place, container: Place) -> None:
    host = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB)
    held = container.start("busy", "sleep", "1000", host={"Memory": host * 8 // 10 * MIB})
    asked = host * 3 // 10
    refused = place.create("busy", "true", host={"Memory": asked * MIB})
    with pytest.raises(ApiError, match=rf"asked {asked} MiB; .* promised \d+ of {host} MiB"):
        refused.start()
    small = place.start("busy", "sleep", "1000", host={"Memory": 64 * MIB})
    with pytest.raises(ApiError, match="the host cannot hold"):
        update(small, Memory=asked * MIB)
    told = place.api.json("GET", "/info")["Proa"]["Admission"]
    assert told["MemoryPromisedMiB"] >= host * 8 // 10 + 64
    held.remove()
    place.start("busy", "true").wait()
