"""What a process has in memory, by the kernel's own account (proc(5): smaps, smaps_rollup).

PSS counts a page that several processes map in equal shares, so that sums over processes are what
the host has given; *private* are pages nobody else maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from proa.host import pseudo


@dataclass(frozen=True)
class Pages:
    """Bytes; `anonymous` is of no file, `shmem` (PSS) is of files in memory."""

    pss: int = 0
    private: int = 0
    anonymous: int = 0
    shmem: int = 0

    def __add__(self, other: Pages) -> Pages:
        return Pages(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Pages)))

    def __sub__(self, other: Pages) -> Pages:
        return Pages(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Pages)))

    @property
    def shared(self) -> int:
        """This process's share of what others map as well."""
        return self.pss - self.private


@dataclass(frozen=True)
class Area:
    """One mapping; `common` when what is written is seen by all who map it."""

    start: int
    end: int
    common: bool
    inode: int
    pages: Pages


def rollup(pid: int) -> Pages:
    """All of a process; nothing of one that has ended."""
    found = _numbers(pseudo.read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()[1:])
    return _pages(found, found.get("Pss_Shmem", 0))


def areas(pid: int) -> Iterator[Area]:
    """Every mapping of a process; none of one that has ended."""
    head = ""
    lines: list[str] = []
    for line in [*_read(pid).splitlines(), "0-0 "]:
        if not line[:1].isupper() and "-" in line.partition(" ")[0]:
            if head:
                yield _area(head, lines)
            head, lines = line, []
        else:
            lines.append(line)


def page_tables(pid: int) -> int:
    """Bytes of a process's page tables."""
    for line in pseudo.read(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("VmPTE:"):
            return int(line.split()[1]) * 1024
    return 0


def parent(pid: int) -> int:
    """Its parent, 0 for one that has ended."""
    words = pseudo.read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def cpu_ns(pid: int) -> int:
    """The processor's time its first thread has had."""
    words = pseudo.read(Path(f"/proc/{pid}/schedstat")).split()
    return int(words[0]) if words else 0


def _read(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/smaps").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _area(head: str, lines: list[str]) -> Area:
    where, modes, _, _, inode, *_ = head.split(maxsplit=5)
    start, _, end = where.partition("-")
    pages = _pages(_numbers(lines), 0)
    return Area(int(start, 16), int(end, 16), modes[3:4] == "s", int(inode), pages)


def _numbers(lines: list[str]) -> dict[str, int]:
    """`Name:  123 kB` lines as bytes."""
    words = (line.split() for line in lines)
    return {word[0][:-1]: int(word[1]) * 1024 for word in words if word[2:] == ["kB"]}


def _pages(found: dict[str, int], shmem: int) -> Pages:
    private = found.get("Private_Clean", 0) + found.get("Private_Dirty", 0)
    private += found.get("Private_Hugetlb", 0)
    return Pages(found.get("Pss", 0), private, found.get("Anonymous", 0), shmem)
