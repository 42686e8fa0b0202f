"""A chain of disk files read as the one disk a guest sees, and copied into a new file of ours.

Nothing is opened but the chain's own descriptors, and nothing of a header is followed.  What is
read in order takes memory for one piece, however large the disk.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from proa.errors import Corrupt, Unsupported
from proa.isolation.vm import disks, layers, qcow2
from proa.isolation.vm.layers import Chain, Opened

WINDOW = 1 << 20
BLOCK = 4096
_ZERO = bytes(WINDOW)


@dataclass(frozen=True)
class Piece:
    """A run of the disk: bytes of a file from `offset` on, or zeros (`descriptor` -1).

    A compressed one is a whole cluster of which it takes what begins at `skip`.
    """

    start: int
    length: int
    descriptor: int = -1
    offset: int = 0
    compressed: int = 0
    skip: int = 0

    def cut(self, start: int, end: int) -> Piece:
        """The part between two addresses that lie in it."""
        inner = start - self.start
        moved = replace(self, start=start, length=end - start)
        if self.compressed:
            return replace(moved, skip=self.skip + inner)
        return replace(moved, offset=self.offset + inner)

    def read(self) -> bytes:
        """Its bytes.  Raises Corrupt when the file has fewer."""
        if self.descriptor < 0:
            return bytes(self.length)
        if self.compressed:
            return _inflated(self)[self.skip : self.skip + self.length]
        data = os.pread(self.descriptor, self.length, self.offset)
        return data.ljust(self.length, b"\0")  # a raw file may end within a sector


def _inflated(piece: Piece) -> bytes:
    """A compressed cluster: its descriptor has the offset, and above it how many sectors more."""
    bits = piece.compressed
    low = 62 - (bits - 8)
    offset, sectors = piece.offset & ((1 << low) - 1), piece.offset >> low
    data = os.pread(piece.descriptor, (sectors + 1) * 512 - (offset & 511), offset)
    try:
        found = zlib.decompressobj(-15).decompress(data, 1 << bits)
    except zlib.error as error:
        raise Corrupt(f"a compressed part of the disk is damaged: {error}") from error
    return found.ljust(1 << bits, b"\0")


def pieces(opened: Opened) -> Iterator[Piece]:
    """What a chain has, in order; what is left out is zeros.  Raises Unsupported for a format."""
    found: Iterator[Piece] = iter(())
    for descriptor, format in reversed(tuple(zip(opened.descriptors, opened.formats, strict=True))):
        found = _merged(_own(descriptor, format), found)
    return found


def _own(descriptor: int, format: str) -> Iterator[Piece]:
    if format == "raw":
        for start, end in disks.data_ranges(descriptor):
            yield Piece(start, end - start, descriptor, start)
        return
    if format != "qcow2":
        raise Unsupported(
            f"a base of the format '{format}' is read by a running machine only",
            hint="start it, and flatten it then",
        )
    header = qcow2.header(descriptor)
    for extent in qcow2.extents(descriptor, header):
        piece = Piece(extent.start, extent.length, descriptor, extent.offset)
        if extent.compressed:
            if header.zstd:
                raise Unsupported(
                    "a base compressed with zstd is read by a running machine only",
                    hint="start it, and flatten it then",
                )
            piece = replace(piece, compressed=header.cluster_bits)
        elif extent.offset < 0:
            piece = Piece(extent.start, extent.length)
        yield piece


def _merged(upper: Iterator[Piece], lower: Iterator[Piece]) -> Iterator[Piece]:
    """Both in order, the lower one where the upper has nothing."""
    below = next(lower, None)
    for piece in upper:
        end = piece.start + piece.length
        while below is not None and below.start < end:
            last = below.start + below.length
            if below.start < piece.start:
                yield below.cut(below.start, min(last, piece.start))
            if last > end:
                below = below.cut(max(end, below.start), last)
                break
            below = next(lower, None)
        yield piece
    while below is not None:
        yield below
        below = next(lower, None)


def windows(opened: Opened, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(start, bytes) of each aligned MiB that has something, in order; zeros fill it up."""
    start, data = -1, bytearray()
    for piece in pieces(opened):
        at, last = piece.start, min(piece.start + piece.length, size_bytes)
        while at < last:
            window = at - at % WINDOW
            if window != start:
                if start >= 0:
                    yield start, bytes(data)
                start, data = window, bytearray(min(WINDOW, size_bytes - window))
            end = min(last, window + WINDOW)
            if piece.descriptor >= 0:
                data[at - window : end - window] = piece.cut(at, end).read()
            at = end
    if start >= 0:
        yield start, bytes(data)


class Writer(Protocol):
    """What takes the bytes of a disk, addresses growing; `finish` brings them to the disk."""

    @property
    def size_bytes(self) -> int: ...
    def write(self, start: int, data: bytes) -> None: ...
    def finish(self) -> None: ...


class RawWriter:
    """Into an empty file of the disk's size."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def size_bytes(self) -> int:
        """Of the disk."""
        return os.fstat(self._descriptor).st_size

    def write(self, start: int, data: bytes) -> None:
        """Bytes of the disk."""
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._descriptor, rest, start)
            start, rest = start + done, rest[done:]

    def finish(self) -> None:
        """Bring all of it to the disk."""
        os.fsync(self._descriptor)


def flatten(source: Chain, writer: Writer) -> None:
    """Write all that a chain has into an empty file, which then needs nothing below.

    What is zero stays a hole.
    """
    opened = layers.open_readonly(source)
    try:
        for start, data in windows(opened, writer.size_bytes):
            for at, run in _runs(data, _ZERO[: len(data)]):
                writer.write(start + at, run)
        writer.finish()
    finally:
        opened.close()


def rebase(source: Chain, below: Chain, target: int) -> None:
    """Write into the empty overlay `target` where a chain differs from `below`, which it is over.

    Guests see the same disk, whatever the two bases have in common.
    """
    old, new = layers.open_readonly(source), layers.open_readonly(below)
    try:
        writer = qcow2.Writer(target)
        size = writer.size_bytes
        for start, ours, theirs in _side_by_side(windows(old, size), windows(new, size)):
            for at, run in _runs(ours, theirs):
                if run == _ZERO[: len(run)]:
                    writer.zero(start + at, len(run))
                else:
                    writer.write(start + at, run)
        writer.finish()
    finally:
        old.close()
        new.close()


def _side_by_side(
    first: Iterator[tuple[int, bytes]], second: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[int, bytes, bytes]]:
    one, two = next(first, None), next(second, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] < two[0]):
            assert one is not None
            yield one[0], one[1], _ZERO[: len(one[1])]
            one = next(first, None)
        elif one is None or two[0] < one[0]:
            yield two[0], _ZERO[: len(two[1])], two[1]
            two = next(second, None)
        else:
            yield one[0], one[1], two[1]
            one, two = next(first, None), next(second, None)


def _runs(data: bytes, other: bytes) -> Iterator[tuple[int, bytes]]:
    """Runs of blocks of `data` that are not as in `other`: of zero blocks, or of none of them."""
    if data == other:
        return
    begin, kind = 0, 0
    for at in range(0, len(data) + BLOCK, BLOCK):
        block = data[at : at + BLOCK]
        now = 0 if block == other[at : at + BLOCK] else 1 + (block != _ZERO[: len(block)])
        if at >= len(data):
            now = 0
        if now != kind:
            if kind:
                yield begin, data[begin:at]
            begin, kind = at, now
