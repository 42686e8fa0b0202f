"""Host memory of what an engine keeps per idle instance, from /proc: PSS and private bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def rollup(pid: int) -> dict[str, int]:
    """`smaps_rollup` of one process in kilobytes; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    fields = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) for words in fields if len(words) >= 2}


def pss_kilobytes(pids: Iterable[int]) -> int:
    """Proportional share, summed."""
    return sum(rollup(pid).get("Pss", 0) for pid in pids)


def private_kilobytes(pids: Iterable[int]) -> int:
    """Memory that ends with these processes."""
    found = [rollup(pid) for pid in pids]
    return sum(each.get("Private_Clean", 0) + each.get("Private_Dirty", 0) for each in found)


def processes() -> dict[int, tuple[int, str]]:
    """pid → (parent, command line) of everything that runs."""
    table = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        table[int(entry.name)] = (parent, command)
    return table


def ancestors(pid: int, table: dict[int, tuple[int, str]]) -> list[int]:
    """The process's parents, nearest first, without init."""
    found: list[int] = []
    while pid in table and table[pid][0] > 1:
        pid = table[pid][0]
        found.append(pid)
    return found


def holds(pid: int, directory: str) -> bool:
    """Whether the process, or the monitor above it, has a file below `directory` open."""
    table = processes()
    for member in (pid, *ancestors(pid, table)):
        try:
            held = [str(path.readlink()) for path in Path(f"/proc/{member}/fd").iterdir()]
        except OSError:
            continue
        if any(target.startswith(directory) for target in held):
            return True
    return False
