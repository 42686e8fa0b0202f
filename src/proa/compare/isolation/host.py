"""What this host says of itself, for answers from inside to be compared with.

`proa compare` runs on the engine's host: instances are reached by a socket there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

NAMESPACES = ("pid", "user", "mnt", "uts", "ipc", "net", "cgroup", "time")


@dataclass(frozen=True)
class Host:
    """Values by the key of the inquiry they belong to; `started` is processes since boot."""

    boot: str
    kernel: str
    values: Mapping[str, str]
    uptime_seconds: float
    started: int
    namespaces: Mapping[str, str] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """Whether there is such a path on this host."""
        return os.path.lexists(path)


def read() -> Host:
    """This host, now."""
    return Host(
        boot=first("/proc/sys/kernel/random/boot_id"),
        kernel=os.uname().release,
        values={
            "sight.processor": line("/proc/cpuinfo", "model name"),
            "sight.memory": line("/proc/meminfo", "MemTotal"),
            "sight.hardware": first("/sys/class/dmi/id/modalias"),
            "sight.command-line": first("/proc/cmdline"),
            "sight.names": os.uname().nodename,
            "sight.disks": _disks(),
        },
        uptime_seconds=float((first("/proc/uptime").split() or ["0"])[0]),
        started=int(line("/proc/stat", "processes") or 0),
        namespaces={name: _namespace(name) for name in NAMESPACES},
    )


def first(path: str) -> str:
    """The first line of a file, empty when it does not answer."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def line(path: str, name: str) -> str:
    """What follows a name at the beginning of a line of a file."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return ""
    found = (row for row in text.splitlines() if row.startswith(name))
    return next(found, "").removeprefix(name).strip(" \t:")


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status: name → value; empty when there is no such process."""
    try:
        rows = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (row.partition(":") for row in rows)}


def files(pid: int) -> set[tuple[int, int]]:
    """Device and inode of every regular file a process has open; empty when we may not know."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            kept = os.stat(f"/proc/{pid}/fd/{name}")
            if kept.st_size and kept.st_nlink:
                found.add((kept.st_dev, kept.st_ino))
    except OSError:
        return found
    return found


def sizes() -> dict[int, str]:
    """Bytes of every mounted file system with a device → where it is mounted."""
    found: dict[int, str] = {}
    for row in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        source, point = row.split()[:2]
        if source.startswith("/"):
            try:
                size = os.statvfs(point)
            except OSError:
                continue
            found.setdefault(size.f_blocks * size.f_frsize, point)
    return found


def _namespace(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/ns/{name}").partition("[")[2].rstrip("]")
    except OSError:
        return ""


def _disks() -> str:
    rows = [row.split() for row in Path("/proc/partitions").read_text().splitlines()[2:]]
    return ", ".join(f"{name}={blocks}" for _, _, blocks, name in rows)
