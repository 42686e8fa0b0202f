"""Small files of /proc, /sys and cgroup file systems."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, value: object) -> None:
    """Write an existing file by one write(2), as these files want it; raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def read(path: Path) -> str:
    """The content, or nothing for a file that cannot be read.

    What a process calls itself, or a file it maps, may be any bytes.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # an old kernel may not have it
        return ""


def parent(pid: int) -> int:
    """A process's parent, 0 for one that has ended."""
    words = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def number(path: Path) -> int:
    """The number in a file; 0 for a missing file or a word such as `max`."""
    text = read(path).strip()
    return int(text) if text.isdigit() else 0


def table(path: Path) -> dict[str, int]:
    """A file of `key number` lines."""
    pairs = (line.split() for line in read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
