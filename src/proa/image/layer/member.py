"""What every unpacker checks of an archive's member, and how it writes a sparse one.

`where` is the archive in the words of an error: "layer" or "archive".
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from proa.errors import Corrupt
from proa.image.layer.stream import write_all
from proa.image.layer.tar import Entry

MAXIMUM_ENTRIES = 4_000_000
MAXIMUM_HOLES = 64 << 30  # bytes of all sparse files together that are not in the archive
MAXIMUM_PATH = 4095
_MAXIMUM_ID = (1 << 32) - 2
_SHOWN = 200
_UNCLEAN = {b"", b"/", b"."}  # a name that begins or ends so is looked at more closely


def show(name: bytes) -> str:
    """A name in an error."""
    return os.fsdecode(name[:_SHOWN])


def path(name: bytes, where: str) -> bytes:
    """A member's path relative to the root; empty for the root itself.  Raises Corrupt."""
    if len(name) > MAXIMUM_PATH:
        raise Corrupt(f"the name '{show(name)}' is too long")
    short = name.removeprefix(b"./").removesuffix(b"/")
    if not (b"/." in short or b"//" in short or {short[:1], short[-1:]} & _UNCLEAN):
        return short
    found = posixpath.normpath(b"./" + name.lstrip(b"/"))
    if found.split(b"/")[0] == b"..":
        raise Corrupt(f"the name '{show(name)}' leads out of the {where}")
    return b"" if found == b"." else found


def check_owner(entry: Entry) -> None:
    """Raises Corrupt for ids that no kernel has."""
    if not (0 <= entry.uid <= _MAXIMUM_ID and 0 <= entry.gid <= _MAXIMUM_ID):
        raise Corrupt(f"'{show(entry.name)}' has an impossible owner '{entry.uid}:{entry.gid}'")


def device(entry: Entry) -> int:
    """The device number of a special file.  Raises Corrupt for one that no kernel has."""
    if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
        raise Corrupt(f"'{show(entry.name)}' has an impossible device number")
    return os.makedev(entry.major, entry.minor)


class Holes:
    """Writes the sparse files of one archive, whose holes together have a limit."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._bytes = 0

    def write(self, fd: int, entry: Entry, data: Iterator[memoryview]) -> None:
        """Write the pieces of a sparse file where they belong."""
        assert entry.segments is not None
        self._bytes += entry.size - entry.stored
        if self._bytes > MAXIMUM_HOLES:
            limit = f"larger than '{MAXIMUM_HOLES}' bytes"
            raise Corrupt(f"the {self._where}'s sparse files are {limit}")
        os.ftruncate(fd, entry.size)
        piece = memoryview(b"")
        for offset, length in entry.segments:
            os.lseek(fd, offset, os.SEEK_SET)
            while length:
                piece = piece or next(data)
                part, piece = piece[:length], piece[length:]
                write_all(fd, part)
                length -= len(part)
