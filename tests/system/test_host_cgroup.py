"""Control groups of this host: limits hold, everything in them ends, nothing stays."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import HostError
from proa.host import cgroup
from proa.spec import Limits
from tests.conftest import need

_BOMB = "while :; do (sleep 100 & sleep 100 &) ; sleep 0.01 & done"


@pytest.fixture
def parent() -> Iterator[str]:
    need(os.geteuid() == 0, "root", "cgroups need root")
    name = f"proa-test{secrets.token_hex(3)}"
    yield name
    cgroup.existing(name).remove()


@pytest.fixture
def group(parent: str) -> Iterator[cgroup.Cgroup]:
    made = cgroup.create(f"{parent}/one")
    yield made
    made.kill()
    made.remove()


def start(group: cgroup.Cgroup, *argv: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """A process that begins its life in the group."""
    opened = group.procs_descriptors()

    def enter() -> None:
        for fd in opened:
            os.write(fd, b"0")

    try:
        return subprocess.Popen(argv, preexec_fn=enter, stdout=stdout, stderr=subprocess.DEVNULL)
    finally:
        for fd in opened:
            os.close(fd)


def test_life(parent: str) -> None:
    group = cgroup.create(f"{parent}/one")
    again = cgroup.create(f"{parent}/one")
    assert again.directories == group.directories
    assert cgroup.children(parent) == ["one"]
    group.remove()
    group.remove()
    assert cgroup.children(parent) == []
    assert group.pids() == []
    group.kill()


def test_parent_may_vanish_in_between(parent: str) -> None:
    cgroup.create(f"{parent}/one").remove()
    cgroup.existing(parent).remove()
    group = cgroup.create(f"{parent}/two")
    group.apply(Limits(memory_bytes=32 << 20, pids=5))
    assert group.usage().memory_limit == 32 << 20
    group.remove()


def test_limits_rise_fall_and_are_lifted(group: cgroup.Cgroup) -> None:
    for memory_mib in (64, 128, 32, 0, 16):
        group.apply(Limits(memory_bytes=memory_mib << 20, cpus=0.5, pids=10, cpu_shares=512))
        assert group.usage().memory_limit == memory_mib << 20
    group.apply(Limits())
    assert group.usage().memory_limit == 0


def test_memory_limit_kills_and_is_counted(group: cgroup.Cgroup) -> None:
    group.apply(Limits(memory_bytes=24 << 20))
    child = start(group, sys.executable, "-c", "x = bytearray(64 << 20)")
    assert child.wait(20) == -9
    usage = group.usage()
    assert usage.oom_kills >= 1
    assert usage.memory_peak <= 24 << 20
    assert usage.cpu_ns > 0


def test_cpu_limit_slows(group: cgroup.Cgroup) -> None:
    group.apply(Limits(cpus=0.2))
    child = start(group, "sh", "-c", "while :; do :; done")
    time.sleep(0.3)
    before, began = group.usage().cpu_ns, time.monotonic_ns()
    time.sleep(1)
    share = (group.usage().cpu_ns - before) / (time.monotonic_ns() - began)
    group.kill()
    child.wait()
    assert share < 0.4


def test_pids_limit_and_fork_bomb_end(group: cgroup.Cgroup) -> None:
    group.apply(Limits(pids=60))
    child = start(group, "bash", "-c", _BOMB)
    time.sleep(0.5)
    assert 2 < group.usage().pids <= 60
    began = time.monotonic()
    group.kill()
    assert time.monotonic() - began < 5
    child.wait(5)
    assert group.pids() == []


def test_unlimited_fork_bomb_ends_without_cgroup_kill(
    group: cgroup.Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    group.apply(Limits(pids=300))
    monkeypatch.setattr(cgroup.Cgroup, "_kill_at_once", lambda self: False)
    child = start(group, "bash", "-c", _BOMB)
    time.sleep(0.3)
    group.kill()
    child.wait(5)
    assert group.pids() == []


def test_frozen_processes_stand_still_and_can_be_killed(group: cgroup.Cgroup) -> None:
    child = start(group, "sh", "-c", "while :; do :; done")
    time.sleep(0.1)
    group.freeze()
    assert group.frozen()
    before = group.usage().cpu_ns
    time.sleep(0.2)
    assert group.usage().cpu_ns - before < 20_000_000
    group.thaw()
    assert not group.frozen()
    time.sleep(0.1)
    assert group.usage().cpu_ns > before
    group.freeze()
    group.kill()
    assert child.wait(5) == -9


def test_only_harmless_devices_open(group: cgroup.Cgroup, tmp_path: Path) -> None:
    """Real root, no `nodev`: what is left is the cgroup's own guard."""
    nodes = {"zero": (0o20666, 1, 5), "kmsg": (0o20666, 1, 11), "loop": (0o60666, 7, 0)}
    for name, (mode, major, minor) in nodes.items():
        os.mknod(tmp_path / name, mode, os.makedev(major, minor))
    program = f"cd {tmp_path}; for n in *; do (: <$n) 2>/dev/null && echo $n; done"
    child = start(group, "sh", "-c", program, stdout=subprocess.PIPE)
    assert child.communicate()[0] == b"zero\n"
    os.close(os.open(tmp_path / "kmsg", os.O_RDONLY | os.O_CLOEXEC))  # which the host can open


def test_nested_groups_are_killed_and_removed(parent: str) -> None:
    outer = cgroup.create(f"{parent}/one")
    inner = cgroup.create(f"{parent}/one/inner")
    child = start(inner, "sleep", "100")
    assert outer.pids() == [child.pid]
    outer.kill()
    child.wait(5)
    outer.remove()
    assert cgroup.children(parent) == []


def test_a_busy_group_is_not_removed(group: cgroup.Cgroup) -> None:
    child = start(group, "sleep", "100")
    with pytest.raises(HostError, match="busy"):
        group.remove()
    child.kill()
    child.wait()


def test_a_gone_group_says_so(parent: str) -> None:
    group = cgroup.existing(f"{parent}/never")
    with pytest.raises(HostError, match="cannot open cgroup"):
        group.procs_descriptors()
    with pytest.raises(HostError, match="cannot set"):
        group.apply(Limits(memory_bytes=1 << 20))
    assert group.usage() == cgroup.Usage()
