"""Limits and readings of cgroups, v1 and v2, as tables of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proa.host import cgroup_io, pseudo
from proa.host.cgroup_io import Setting
from proa.spec import Limits

_CPU_PERIOD_US = 100_000
_UNLIMITED_V1 = 1 << 62  # v1 reports "no limit" as a number just below 2^63


@dataclass(frozen=True)
class Usage:
    """What a cgroup uses and has used; `memory_limit` 0 means none.

    `memory_inactive_bytes` is the part of `memory_bytes` that is cache the kernel would drop.
    """

    memory_bytes: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_inactive_bytes: int = 0
    cpu_ns: int = 0
    pids: int = 0
    oom_kills: int = 0
    read_bytes: int = 0
    write_bytes: int = 0


@dataclass(frozen=True)
class Kept:
    """What of a cgroup's charge no process maps: the kernel's own, all of its files in memory
    (mapped or not), and cache of files of the disk."""

    kernel_bytes: int = 0
    shmem_bytes: int = 0
    cache_bytes: int = 0


def _quota_us(limits: Limits) -> int:
    return max(1000, round(limits.cpus * _period_us(limits)))


def _period_us(limits: Limits) -> int:
    return limits.cpu_period_us or _CPU_PERIOD_US


def memory_and_swap(limits: Limits) -> int:
    """The bound on both together, 0 for none: without a word on swap there is none to use."""
    return 0 if limits.swap_bytes < 0 else limits.swap_bytes or limits.memory_bytes


def settings_v1(limits: Limits) -> tuple[Setting, ...]:
    """What to write on v1, but for memory, where order matters."""
    quota = str(_quota_us(limits)) if limits.cpus else "-1"
    pids = str(limits.pids or "max")
    shares = str(limits.cpu_shares or 1024)
    rows = [
        Setting("cpu", "cpu.cfs_quota_us", quota, not limits.cpus),
        Setting("cpu", "cpu.shares", shares, not limits.cpu_shares),
        Setting("pids", "pids.max", pids, not limits.pids),
    ]
    if limits.cpu_period_us:
        rows.insert(0, Setting("cpu", "cpu.cfs_period_us", str(limits.cpu_period_us), False))
    if limits.reservation_bytes:
        value = str(limits.reservation_bytes)
        rows.append(Setting("memory", "memory.soft_limit_in_bytes", value, False))
    return (*rows, *_sets(limits), *cgroup_io.settings_v1(limits))


def _sets(limits: Limits) -> tuple[Setting, ...]:
    wanted = (("cpuset.cpus", limits.cpuset), ("cpuset.mems", limits.memory_nodes))
    return tuple(Setting("cpuset", name, value, False) for name, value in wanted if value)


def settings_v2(limits: Limits) -> tuple[Setting, ...]:
    """What to write on v2; a memory limit allows no swap beside it."""
    quota = str(_quota_us(limits)) if limits.cpus else "max"
    both = memory_and_swap(limits)
    swap = str(both - limits.memory_bytes) if both else "max"
    rows = [
        Setting("memory", "memory.max", str(limits.memory_bytes or "max"), not limits.memory_bytes),
        Setting("memory", "memory.swap.max", swap, True),
        Setting("cpu", "cpu.max", f"{quota} {_period_us(limits)}", not limits.cpus),
        Setting("cpu", "cpu.weight", str(cpu_weight(limits.cpu_shares)), not limits.cpu_shares),
        Setting("pids", "pids.max", str(limits.pids or "max"), not limits.pids),
    ]
    if limits.reservation_bytes:
        rows.append(Setting("memory", "memory.low", str(limits.reservation_bytes), False))
    return (*rows, *_sets(limits), *cgroup_io.settings_v2(limits))


def cpu_weight(shares: int) -> int:
    """The v2 weight (1 to 10000, 100 by default) of a number of v1 shares (2 to 262144)."""
    if not shares:
        return 100
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def usage_v1(at: Mapping[str, Path]) -> Usage:
    """Readings of v1, from the directory of each controller."""
    nowhere = Path("/nonexistent")
    memory = at.get("memory", nowhere)
    limit = pseudo.number(memory / "memory.limit_in_bytes")
    read, written = moved_v1(
        pseudo.read(at.get("blkio", nowhere) / "blkio.throttle.io_service_bytes")
    )
    return Usage(
        memory_bytes=pseudo.number(memory / "memory.usage_in_bytes"),
        memory_peak=pseudo.number(memory / "memory.max_usage_in_bytes"),
        memory_limit=0 if limit >= _UNLIMITED_V1 else limit,
        memory_inactive_bytes=pseudo.table(memory / "memory.stat").get("total_inactive_file", 0),
        cpu_ns=pseudo.number(at.get("cpuacct", nowhere) / "cpuacct.usage"),
        pids=pseudo.number(at.get("pids", nowhere) / "pids.current"),
        oom_kills=pseudo.table(memory / "memory.oom_control").get("oom_kill", 0),
        read_bytes=read,
        write_bytes=written,
    )


def kept_v1(at: Mapping[str, Path]) -> Kept:
    """Readings of v1; `cache` has the files in memory, too."""
    memory = at.get("memory", Path("/nonexistent"))
    facts = pseudo.table(memory / "memory.stat")
    shmem, mapped = facts.get("total_shmem", 0), facts.get("total_mapped_file", 0)
    kernel = pseudo.number(memory / "memory.kmem.usage_in_bytes")
    return Kept(kernel, shmem, max(0, facts.get("total_cache", 0) - shmem - mapped))


_KERNEL_V2 = ("kernel_stack", "pagetables", "percpu", "sock", "vmalloc", "slab")


def kept_v2(directory: Path) -> Kept:
    """Readings of v2; before Linux 5.18 the kernel's are summed up from its parts."""
    facts = pseudo.table(directory / "memory.stat")
    kernel = facts.get("kernel", 0) or sum(facts.get(name, 0) for name in _KERNEL_V2)
    shmem, mapped = facts.get("shmem", 0), facts.get("file_mapped", 0)
    return Kept(kernel, shmem, max(0, facts.get("file", 0) - shmem - mapped))


def moved_v1(text: str) -> tuple[int, int]:
    """Bytes read and written, over all devices, of a blkio `device operation bytes` file."""
    words = [line.split() for line in text.splitlines()]
    read, written = (
        sum(int(word[2]) for word in words if len(word) == 3 and word[1] == operation)
        for operation in ("Read", "Write")
    )
    return read, written


def usage_v2(directory: Path) -> Usage:
    """Readings of v2."""
    read, written = moved_v2(pseudo.read(directory / "io.stat"))
    return Usage(
        memory_bytes=pseudo.number(directory / "memory.current"),
        memory_peak=pseudo.number(directory / "memory.peak"),
        memory_limit=pseudo.number(directory / "memory.max"),
        memory_inactive_bytes=pseudo.table(directory / "memory.stat").get("inactive_file", 0),
        cpu_ns=pseudo.table(directory / "cpu.stat").get("usage_usec", 0) * 1000,
        pids=pseudo.number(directory / "pids.current"),
        oom_kills=pseudo.table(directory / "memory.events").get("oom_kill", 0),
        read_bytes=read,
        write_bytes=written,
    )


def moved_v2(text: str) -> tuple[int, int]:
    """Bytes read and written, over all devices, of an io.stat file."""
    pairs = [word.partition("=") for word in text.split()]
    read, written = (
        sum(int(value) for key, _, value in pairs if key == wanted)
        for wanted in ("rbytes", "wbytes")
    )
    return read, written
