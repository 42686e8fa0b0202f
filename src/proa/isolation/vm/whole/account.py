"""What a whole system uses, by its kernel's account, read through our agent."""

from __future__ import annotations

import re

from proa.agent import Agent
from proa.host.cgroup import Usage
from proa.isolation.vm import inside

FILES = ("/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/vmstat", "/proc/diskstats")
TICK_NS = 10_000_000  # of /proc/stat: USER_HZ is 100 on every architecture there is
SECTOR = 512
_DISK = re.compile(r"(vd|sd|hd|xvd)[a-z]+|nvme\d+n\d+|mmcblk\d+")


def usage(agent: Agent) -> Usage:
    """Memory, processor time, processes and blocks moved, of the whole system."""
    return parse(dict(zip(FILES, inside.read(agent, FILES), strict=True)))


def parse(content: dict[str, str]) -> Usage:
    """The account in the waist's terms."""
    memory = inside.table(content["/proc/meminfo"].replace(":", "").replace(" kB", ""))
    total = memory.get("MemTotal", 0) << 10
    disks = [row.split() for row in content["/proc/diskstats"].splitlines()]
    moved = [row for row in disks if len(row) > 9 and _DISK.fullmatch(row[2])]
    return Usage(
        memory_bytes=max(0, total - (memory.get("MemAvailable", 0) << 10)),
        memory_limit=total,
        memory_peak=0,
        cpu_ns=_busy_ticks(content["/proc/stat"]) * TICK_NS,
        pids=_tasks(content["/proc/loadavg"]),
        oom_kills=inside.table(content["/proc/vmstat"]).get("oom_kill", 0),
        read_bytes=sum(inside.number(row[5]) for row in moved) * SECTOR,
        write_bytes=sum(inside.number(row[9]) for row in moved) * SECTOR,
    )


def _busy_ticks(stat: str) -> int:
    """All but idle and iowait: cpu user nice system idle iowait irq softirq steal."""
    ticks = [inside.number(word) for word in stat.partition("\n")[0].split()[1:9]]
    return sum(ticks) - sum(ticks[3:5])


def _tasks(loadavg: str) -> int:
    """The second half of the fourth word, `running/all`."""
    words = loadavg.split()
    return inside.number(words[3].partition("/")[2]) if len(words) > 3 else 0
