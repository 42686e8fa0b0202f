"""The parts of a sparse file that hold data: what is worth sending."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 1 << 20


def of(path: Path) -> list[tuple[int, int]]:
    """Offset and length of each part, in order."""
    found: list[tuple[int, int]] = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = 0
        while True:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no more data
                    return found
                raise
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, at - start))
    finally:
        os.close(fd)


def pieces(path: Path, parts: list[tuple[int, int]]) -> Iterator[bytes]:
    """The bytes of these parts."""
    with path.open("rb", buffering=0) as file:
        for start, length in parts:
            file.seek(start)
            while length > 0 and (data := file.read(min(length, CHUNK_BYTES))):
                length -= len(data)
                yield data
