"""Reading the host's cgroup layout, and the tables of limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from proa.errors import HostError
from proa.host import cgroup_io, cgroup_layout, cgroup_tables
from proa.spec import Limits, Throttle

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """\
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
ROOT = Path("/sys/fs/cgroup")


def test_v2() -> None:
    found = cgroup_layout.parse(V2, "0::/system.slice/proa.service\n")
    assert (found.kind, found.unified) == ("v2", ROOT)
    assert found.own == "/system.slice/proa.service"


def test_v1_uses_the_freezer_and_knows_controllers_mounted_together() -> None:
    found = cgroup_layout.parse(V1, "3:memory:/user\n")
    assert found.kind == "v1"
    assert dict(found.trees) == {
        "cpu": ROOT / "cpu,cpuacct",
        "cpuacct": ROOT / "cpu,cpuacct",
        "memory": ROOT / "memory",
        "freezer": ROOT / "freezer",
    }


def test_hybrid_freezes_in_the_unified_tree() -> None:
    found = cgroup_layout.parse(V1 + UNIFIED, "0::/\n")
    assert (found.kind, found.unified) == ("hybrid", ROOT / "unified")
    assert "freezer" not in dict(found.trees)


def test_no_cgroups_is_said() -> None:
    with pytest.raises(HostError, match="no cgroup file system"):
        cgroup_layout.parse("22 27 0:21 / /proc rw - proc proc rw\n", "0::/\n")


def test_v2_settings() -> None:
    limits = Limits(memory_bytes=1 << 20, cpus=0.5, pids=9, cpu_shares=1024)
    values = {row.file: row.value for row in cgroup_tables.settings_v2(limits)}
    assert values == {
        "memory.max": "1048576",
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "cpu.weight": "39",
        "pids.max": "9",
    }


def test_throttles_sets_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_io, "device_number", lambda path: "8:16")
    limits = Limits(
        cpus=0.5, cpu_period_us=50_000, cpuset="0-1", memory_bytes=1 << 20, swap_bytes=3 << 20,
        io_weight=1000, throttles=(Throttle("write_bps", "/dev/sdb", 7),
                                   Throttle("read_iops", "/dev/sdb", 0)),
    )  # fmt: skip
    v1 = [(row.file, row.value) for row in cgroup_tables.settings_v1(limits)]
    assert v1[0] == ("cpu.cfs_period_us", "50000")  # before the quota, which is a part of it
    assert ("cpu.cfs_quota_us", "25000") in v1
    assert ("blkio.throttle.write_bps_device", "8:16 7") in v1
    assert ("blkio.throttle.read_iops_device", "8:16 0") in v1
    v2 = [(row.file, row.value) for row in cgroup_tables.settings_v2(limits)]
    assert ("cpu.max", "25000 50000") in v2 and ("cpuset.cpus", "0-1") in v2
    assert ("memory.swap.max", str(2 << 20)) in v2 and ("io.weight", "10000") in v2
    assert ("io.max", "8:16 wbps=7") in v2 and ("io.max", "8:16 riops=max") in v2


def test_no_limits_are_lifted_limits() -> None:
    v2 = {row.file: row.value for row in cgroup_tables.settings_v2(Limits())}
    assert v2["memory.max"] == v2["pids.max"] == "max"
    assert v2["cpu.max"] == "max 100000"
    v1 = {row.file: row.value for row in cgroup_tables.settings_v1(Limits())}
    assert v1 == {"cpu.cfs_quota_us": "-1", "cpu.shares": "1024", "pids.max": "max"}
    assert all(row.optional for row in (*cgroup_tables.settings_v1(Limits()),))


@pytest.mark.parametrize(("shares", "weight"), [(0, 100), (2, 1), (1024, 39), (262144, 10000)])
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert cgroup_tables.cpu_weight(shares) == weight


def test_bytes_moved() -> None:
    v1 = "254:0 Read 4096\n254:0 Write 10\n254:0 Total 4106\n8:0 Read 1\nTotal 4107\n"
    assert cgroup_tables.moved_v1(v1) == (4097, 10)
    v2 = "254:0 rbytes=5 wbytes=6 rios=1 wios=1 dbytes=0\n8:0 rbytes=1 wbytes=0\n"
    assert cgroup_tables.moved_v2(v2) == (6, 6)
