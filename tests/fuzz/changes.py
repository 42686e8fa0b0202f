"""Fuzz the records of a guest: whatever it says it changed, only its own directory does."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator

from proa.engine import changes
from proa.errors import Corrupt
from proa.image.layer.unpack import unpack
from tests.fuzz import canary
from tests.fuzz.harness import Target, main

HEAD = struct.Struct("<8I2Q")
FILE, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
HARD_LINK, XATTR, SPARSE = 1, 4, 16
PIECES = struct.pack("<4Q", 0, 1, 4096, 2)
RECORDS = (
    (b".", DIRECTORY, b"", 0, 0, b""),
    (b"./d", FILE, b"trusted.overlay.opaque", XATTR, 0, b"y"),
    (b"./d", DIRECTORY, b"", 0, 0, b""),
    (b"./d/f", FILE, b"user.x", XATTR, 0, b"value"),
    (b"./d/f", FILE, b"", 0, 0, b"content"),
    (b"./d/h", FILE, b"./d/f", HARD_LINK, 0, b""),
    (b"./l", stat.S_IFLNK | 0o777, b"../canary", 0, 0, b""),
    (b"./l/f", FILE, b"", 0, 0, b"through"),
    (b"./gone", stat.S_IFCHR, b"", 0, 0, b""),
    (b"./s", FILE, b"", SPARSE, 2, PIECES + b"abc"),
)
WORDS = (
    b"..", b"./", b"/", b"../canary/file", b".wh.", b"\0", b"\xff" * 4, b"\xff" * 8,
    struct.pack("<I", FILE), struct.pack("<I", DIRECTORY), struct.pack("<I", stat.S_IFLNK),
    struct.pack("<I", stat.S_IFCHR), struct.pack("<I", 1), struct.pack("<I", 4),
    struct.pack("<I", 16), struct.pack("<Q", 1 << 40), HEAD.pack(*(0,) * 10),
)  # fmt: skip


def seed() -> bytes:
    """A little of everything."""
    made = b""
    for path, mode, link, flags, major, content in RECORDS:
        size = 8192 if flags & SPARSE else len(content)
        made += HEAD.pack(len(path), len(link), mode, 0, 0, major, 0, flags, size, 5)
        made += path + link + content
    return made + HEAD.pack(*(0,) * 10)


class _Bytes:
    """`changes.Records` over what is at hand."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        self._at += count
        if len(part) < count:
            raise Corrupt("the guest ended")
        return part


class _Source:
    """A tar in pieces, as the unpacker reads it."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def read(self, size: int, /) -> bytes:
        self._rest = self._rest or next(self._pieces, b"")
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def check(data: bytes) -> object:
    """Unpack beside a canary; it stays as it was."""
    with canary.watched() as (root, trash):
        tar = changes.layer(_Bytes(data), root.stat())
        return unpack(_Source(tar), root, trash).hides


TARGET = Target("changes", check, [seed()], WORDS)

if __name__ == "__main__":
    main(TARGET)
