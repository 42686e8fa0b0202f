"""A sparse file as a compressed stream: its size, then what is in it, piece by piece.

`PROASP1\\n`, u64 size, then pieces of u64 offset, u32 length and the bytes; the last has length 0.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt
from proa.image.layer import compress
from proa.image.layer.stream import Bounds, Source, decompressed, write_all

MAGIC = b"PROASP1\n"
SIZE, PIECE = struct.Struct("<Q"), struct.Struct("<QI")
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Packed:
    """A blob that was written."""

    path: Path
    digest: str
    size: int


def pack(source: int, ranges: Iterable[tuple[int, int]], target: Path, kind: str) -> Packed:
    """Write a file's ranges to the new file `target`, compressed."""
    compressor, digest, size = compress.KINDS[kind](), hashlib.sha256(), 0
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def put(data: bytes) -> int:
        digest.update(data)
        write_all(out, data)
        return len(data)

    try:
        size += put(compressor.compress(MAGIC + SIZE.pack(os.fstat(source).st_size)))
        for start, end in ranges:
            while start < end:
                data = os.pread(source, min(PIECE_BYTES, end - start), start)
                if not data:
                    break
                size += put(compressor.compress(PIECE.pack(start, len(data)) + data))
                start += len(data)
        size += put(compressor.compress(PIECE.pack(0, 0)))
        size += put(compressor.flush())
    finally:
        os.close(out)
    return Packed(target, f"sha256:{digest.hexdigest()}", size)


def unpack(blob: Source, bounds: Bounds, target: int, maximum_bytes: int) -> None:
    """Write what a stream holds into an empty file.  Raises Corrupt."""
    with decompressed(blob, bounds) as plain:
        head = _exactly(plain, len(MAGIC) + SIZE.size)
        (size,) = SIZE.unpack(head[len(MAGIC) :])
        if head[: len(MAGIC)] != MAGIC or size > maximum_bytes:
            raise Corrupt("a part of the snapshot is no sparse file, or too large")
        os.ftruncate(target, size)
        while True:
            offset, length = PIECE.unpack(_exactly(plain, PIECE.size))
            if length == 0:
                break
            if length > PIECE_BYTES or offset + length > size:
                raise Corrupt("a part of the snapshot has a piece beyond its end")
            os.pwrite(target, _exactly(plain, length), offset)
        while plain.read(PIECE_BYTES):
            pass  # so that the digest of all of it is checked


def _exactly(plain: Source, length: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < length:
        data = plain.read(length - len(pieces))
        if not data:
            raise Corrupt("a part of the snapshot is cut off")
        pieces += data
    return bytes(pieces)
