"""Where the memory an instance costs its host is, everything counted once.

Pages several processes map are counted by their share (PSS), so the parts of all instances add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proa.costs import Memory, Part
from proa.host import pseudo, smaps
from proa.host.cgroup import Cgroup, Kept
from proa.host.smaps import Pages


@dataclass(frozen=True)
class Held:
    """What the processes of one place have, and what its cgroup was charged beside."""

    pages: Pages
    monitor: Pages
    tables: int
    kept: Kept
    processes: int
    cpu_ns: int


def held(group: Cgroup) -> Held:
    """A reading of a place that runs, by its cgroup; its monitor is the parent of what is in it."""
    pids = group.pids()
    monitor = next((p for p in map(pseudo.parent, pids) if p and p not in pids), 0)
    pages = sum(map(smaps.rollup, pids), Pages())
    tables = sum(map(smaps.page_tables, [*pids, monitor]))
    cpu_ns = group.usage().cpu_ns + smaps.cpu_ns(monitor)
    count = len(pids) + bool(monitor)
    return Held(pages, smaps.rollup(monitor), tables, group.kept(), count, cpu_ns)


def of_processes(group: Cgroup) -> Memory:
    """The memory of a place whose processes are the instance's own."""
    found = held(group)
    parts = (
        Part("processes", found.pages.own, note="what its programs have made for themselves"),
        Part("programs and libraries", found.pages.file, True,
             "its files that are mapped: in the page cache, once for all who use them"),
        *around([found], found.pages.shmem),
    )  # fmt: skip
    return Memory(there(parts), cache([found]), found.processes, found.cpu_ns)


def around(places: list[Held], mapped_shmem: int) -> tuple[Part, ...]:
    """What every form has: monitors, files in memory, the kernel's own."""
    monitors = sum((item.monitor for item in places), Pages())
    tables = sum(item.tables for item in places)
    kernel = sum(item.kept.kernel_bytes for item in places)
    shmem = sum(item.kept.shmem_bytes for item in places)
    return (
        Part("monitor", monitors.own, note="Proa's process that holds the instance"),
        Part("Proa's program", monitors.file, True, "one for all monitors of the host"),
        Part("files in memory", max(0, shmem - mapped_shmem), note="tmpfs, /dev/shm"),
        Part("page tables", tables),
        Part("kernel", max(0, kernel - tables), note="stacks, sockets, slabs: by its cgroup"),
    )  # fmt: skip


def cache(places: list[Held]) -> tuple[Part, ...]:
    """What the host caches of files, charged to whoever read them first."""
    unmapped = sum(item.kept.cache_bytes for item in places)
    note = "of files it was the first to read; given back when memory is short"
    return there((Part("page cache", unmapped, True, note),))


def there(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Those that are not empty."""
    return tuple(part for part in parts if part.bytes)
