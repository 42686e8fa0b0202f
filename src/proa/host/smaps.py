"""What a process has in memory, by the kernel's own account (proc(5): smaps, smaps_rollup).

PSS counts a page that several processes map in equal shares, so that sums over processes are what
the host has given.  Pages of files are in the page cache, once for all who map them; anonymous ones
end with whoever has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from proa.host import pseudo


@dataclass(frozen=True)
class Pages:
    """Bytes of PSS by kind: of no file, of files on disks, of files in memory."""

    anonymous: int = 0
    file: int = 0
    shmem: int = 0

    def __add__(self, other: Pages) -> Pages:
        return Pages(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Pages)))

    def __sub__(self, other: Pages) -> Pages:
        return Pages(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Pages)))

    @property
    def pss(self) -> int:
        """All of it."""
        return self.anonymous + self.file + self.shmem

    @property
    def own(self) -> int:
        """What ends with the process, or when it lets go of it."""
        return self.anonymous + self.shmem


@dataclass(frozen=True)
class Area:
    """One mapping; `common` when what is written is seen by all who map it.

    `written` are its anonymous pages, copies of a file's that were made when they were written.
    """

    start: int
    end: int
    common: bool
    inode: int
    pss: int
    written: int


def rollup(pid: int) -> Pages:
    """All of a process; nothing of one that has ended."""
    found = _numbers(_lines(pid, "smaps_rollup")[1:])
    return Pages(*(found.get(f"Pss_{kind}", 0) for kind in ("Anon", "File", "Shmem")))


def areas(pid: int) -> Iterator[Area]:
    """Every mapping of a process; none of one that has ended."""
    head = ""
    lines: list[str] = []
    for line in [*_lines(pid, "smaps"), "0-0 "]:
        if not line[:1].isupper() and "-" in line.partition(" ")[0]:
            if head:
                yield _area(head, lines)
            head, lines = line, []
        else:
            lines.append(line)


def page_tables(pid: int) -> int:
    """Bytes of a process's page tables."""
    return _numbers(_lines(pid, "status")).get("VmPTE", 0)


def cpu_ns(pid: int) -> int:
    """The processor's time its first thread has had."""
    words = pseudo.read(Path(f"/proc/{pid}/schedstat")).split()
    return int(words[0]) if words else 0


def _lines(pid: int, name: str) -> list[str]:
    """Of a file of a process; names in it have no line feeds, but what Python takes for one."""
    return pseudo.read(Path(f"/proc/{pid}/{name}")).split("\n")


def _area(head: str, lines: list[str]) -> Area:
    where, modes, _, _, inode, *_ = head.split(maxsplit=5)
    start, _, end = where.partition("-")
    found = _numbers(lines)
    pss, written = found.get("Pss", 0), found.get("Anonymous", 0)
    return Area(
        int(start, 16), int(end, 16), modes[3:4] == "s", int(inode), pss, min(pss, written)
    )  # fmt: skip


def _numbers(lines: list[str]) -> dict[str, int]:
    """`Name:  123 kB` lines as bytes."""
    words = (line.split() for line in lines)
    return {word[0][:-1]: int(word[1]) * 1024 for word in words if word[2:] == ["kB"]}
