"""qcow2 files of our own: an empty overlay made in a fraction of a millisecond, headers read back.

Clusters of 128 KiB with subclusters of 4 KiB (`extended_l2`): a small write to what is still in a
file below copies nothing.  The file names no file below it: who opens a chain says what is below,
and a header that names one was not written by us.  Source: QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt, HostError, Invalid, NoSpace

CLUSTER_BITS = 17
CLUSTER = 1 << CLUSTER_BITS
SECTOR = 512
SIZE_MAXIMUM_BYTES = 16 << 40
_MAGIC = 0x514649FB
_HEADER = struct.Struct(">IIQIIQIIQQIIQQQQII")
_HEADER_BYTES = 104
_EXTERNAL_DATA, _EXTENDED_L2 = 1 << 2, 1 << 4
_DIRTY, _CORRUPT, _COMPRESSION_TYPE = 1 << 0, 1 << 1, 1 << 3
_KNOWN = _DIRTY | _COMPRESSION_TYPE | _EXTENDED_L2
_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED, _COPIED = 1 << 62, 1 << 63
_L1_MAXIMUM_BYTES = 32 << 20


@dataclass(frozen=True)
class Header:
    """What a file says of itself; offsets and sizes in bytes."""

    size_bytes: int
    cluster_bits: int
    l1_offset: int
    l1_entries: int
    extended: bool
    backing: bool
    zstd: bool = False

    @property
    def entry_bytes(self) -> int:
        """Of an entry of a second-level table."""
        return 16 if self.extended else 8

    @property
    def entries(self) -> int:
        """In a second-level table."""
        return (1 << self.cluster_bits) // self.entry_bytes


def create(path: Path, size_bytes: int) -> int:
    """An empty overlay at `path`, open for reading and writing; nothing is left when it fails.

    Raises Invalid for a size, NoSpace, HostError (FileExists among others).
    """
    if not 0 < size_bytes <= SIZE_MAXIMUM_BYTES or size_bytes % SECTOR:
        raise Invalid(f"a disk cannot have '{size_bytes}' bytes", hint="a multiple of 512")
    covered = CLUSTER * (CLUSTER // 16)  # by one entry of the first-level table
    entries = -(-size_bytes // covered)
    tables = -(-entries * 8 // CLUSTER)
    used = 3 + tables
    header = _HEADER.pack(
        _MAGIC, 3, 0, 0, CLUSTER_BITS, size_bytes, 0, entries, 3 * CLUSTER, CLUSTER, 1, 0, 0,
        _EXTENDED_L2, 0, 0, 4, _HEADER_BYTES,
    )  # fmt: skip
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failure(path, error) from error
    try:
        os.ftruncate(descriptor, used * CLUSTER)
        os.pwrite(descriptor, header + bytes(8), 0)
        os.pwrite(descriptor, struct.pack(">Q", 2 * CLUSTER), CLUSTER)
        os.pwrite(descriptor, struct.pack(">H", 1) * used, 2 * CLUSTER)
    except OSError as error:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise failure(path, error) from error
    return descriptor


def failure(path: Path, error: OSError) -> HostError | NoSpace:
    """What went wrong with a disk's file, typed."""
    message = f"cannot make the disk '{path}': {error.strerror}"
    return NoSpace(message) if error.errno in (errno.ENOSPC, errno.EDQUOT) else HostError(message)


def header(descriptor: int) -> Header:
    """The checked header of an open file.  Raises Corrupt: damaged, or with other files' names."""
    data = os.pread(descriptor, _HEADER_BYTES, 0)
    if len(data) < 72 or data[:4] != b"QFI\xfb":
        raise Corrupt("the disk is no qcow2")
    fields = _HEADER.unpack(data.ljust(_HEADER_BYTES, b"\0"))
    version, backing, bits, size, crypt = (fields[1], fields[2], fields[4], fields[5], fields[6])
    entries, offset = fields[7], fields[8]
    features = fields[13] if version >= 3 else 0
    zstd = bool(features & _COMPRESSION_TYPE)
    if version not in (2, 3) or not 9 <= bits <= 21 or features & ~_KNOWN or crypt:
        raise Corrupt("the qcow2 is damaged, or has features nobody here writes")
    found = Header(size, bits, offset, entries, bool(features & _EXTENDED_L2), bool(backing),
                   zstd)  # fmt: skip
    covered = found.entries << bits
    length = os.fstat(descriptor).st_size
    if entries * 8 > _L1_MAXIMUM_BYTES or entries * covered < size or offset + entries * 8 > length:
        raise Corrupt("the tables of the qcow2 do not fit it")
    return found


def check(descriptor: int, size_bytes: int = 0) -> Header:
    """The same of an overlay of ours: it names nothing below it, and has the size it should have.

    A QEMU that a guest took over can write what it likes into its own overlay.
    """
    found = header(descriptor)
    if found.backing or (size_bytes and found.size_bytes != size_bytes):
        raise Corrupt("the header of the overlay is not what was written")
    return found


@dataclass(frozen=True)
class Extent:
    """A run of a disk: where its bytes are in the file, -1 for zeros; compressed ones only tell."""

    start: int
    length: int
    offset: int
    compressed: bool = False


def extents(descriptor: int, found: Header) -> Iterator[Extent]:
    """What this file itself says about the disk, in order; what is below it is left out.

    Raises Corrupt for a table that points out of the file.
    """
    table = _read(descriptor, found.l1_offset, found.l1_entries * 8)
    pending: Extent | None = None
    for number, (word,) in enumerate(struct.iter_unpack(">Q", table)):
        if not word & _OFFSET:
            continue
        for extent in _of_table(descriptor, found, number, word & _OFFSET):
            if pending is not None and _joins(pending, extent):
                length = pending.length + extent.length
                pending = Extent(pending.start, length, pending.offset, pending.compressed)
                continue
            if pending is not None:
                yield pending
            pending = extent
    if pending is not None:
        yield pending


def _joins(before: Extent, after: Extent) -> bool:
    if before.start + before.length != after.start or before.compressed != after.compressed:
        return False
    if before.offset < 0 or after.offset < 0:
        return before.offset == after.offset
    return before.offset + before.length == after.offset and not before.compressed


def _of_table(descriptor: int, found: Header, number: int, offset: int) -> Iterator[Extent]:
    cluster = 1 << found.cluster_bits
    data = _read(descriptor, offset, cluster)
    start = number * found.entries * cluster
    length = os.fstat(descriptor).st_size
    empty = bytes(found.entry_bytes)
    for index in range(found.entries):
        at = index * found.entry_bytes
        if data[at : at + found.entry_bytes] == empty:
            continue
        (word,) = struct.unpack_from(">Q", data, at)
        where = start + index * cluster
        if where >= found.size_bytes:
            return
        if word & _OFFSET and not word & _COMPRESSED and (word & _OFFSET) >= length:
            raise Corrupt("a table of the qcow2 points out of its file")
        if word & _COMPRESSED:
            yield Extent(where, cluster, word & ~(3 << 62), compressed=True)
        elif found.extended:
            yield from _subclusters(found, where, word & _OFFSET, data[at + 8 : at + 16])
        elif word & 1:
            yield Extent(where, cluster, -1)
        else:
            yield Extent(where, cluster, word & _OFFSET)


def _subclusters(found: Header, where: int, offset: int, bitmap: bytes) -> Iterator[Extent]:
    zeros, there = struct.unpack(">II", bitmap)
    size = (1 << found.cluster_bits) // 32
    if there == 0xFFFFFFFF:
        yield Extent(where, 32 * size, offset)
        return
    for index in range(32):
        if there >> index & 1:
            yield Extent(where + index * size, size, offset + index * size)
        elif zeros >> index & 1:
            yield Extent(where + index * size, size, -1)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise Corrupt("a table of the qcow2 is cut off")
    return data


class Writer:
    """Fills an empty overlay, addresses only ever growing; multiples of 4 KiB but at the end.

    Nothing of it counts before `finish` has returned: it is on the disk then.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._header = header(descriptor)
        self._end = os.fstat(descriptor).st_size
        self._table = bytearray()
        self._number = -1
        self._first: list[int] = [0] * self._header.l1_entries

    @property
    def size_bytes(self) -> int:
        """Of the disk."""
        return self._header.size_bytes

    def write(self, start: int, data: bytes) -> None:
        """Bytes of the disk."""
        for at, length in _clusters(start, len(data)):
            offset = self._entry(at)
            piece = data[at - start : at - start + length]
            os.pwrite(self._descriptor, piece, offset + at % CLUSTER)
            self._mark(at, length, 0)

    def zero(self, start: int, length: int) -> None:
        """Zeros, whatever is below."""
        for at, count in _clusters(start, length):
            self._mark(at, count, 32)

    def finish(self) -> None:
        """Write the tables, and bring all of it to the disk."""
        self._flush()
        os.pwrite(
            self._descriptor, struct.pack(f">{len(self._first)}Q", *self._first),
            self._header.l1_offset,
        )  # fmt: skip
        counted = CLUSTER // 2  # clusters whose references one block counts
        clusters, blocks = self._end // CLUSTER, 1
        while (clusters + blocks - 1) > blocks * counted:
            blocks += 1
        offsets = [2 * CLUSTER, *(self._end + CLUSTER * more for more in range(blocks - 1))]
        clusters += blocks - 1
        os.ftruncate(self._descriptor, clusters * CLUSTER)
        for number, offset in enumerate(offsets):
            used = min(clusters - number * counted, counted)
            os.pwrite(self._descriptor, struct.pack(">H", 1) * used, offset)
        os.pwrite(self._descriptor, struct.pack(f">{blocks}Q", *offsets), CLUSTER)
        os.fsync(self._descriptor)

    def _entry(self, at: int) -> int:
        """Where the cluster of an address is, taken now if it has none."""
        place = self._place(at)
        (offset,) = struct.unpack_from(">Q", self._table, place)
        if not offset:
            offset, self._end = self._end, self._end + CLUSTER
            struct.pack_into(">Q", self._table, place, offset | _COPIED)
        return int(offset & _OFFSET)

    def _mark(self, at: int, length: int, shift: int) -> None:
        """Say of subclusters that they are there (0) or zeros (32)."""
        place, size = self._place(at) + 8, CLUSTER // 32
        first = at % CLUSTER // size
        count = -(-(at % CLUSTER + length) // size) - first
        (word,) = struct.unpack_from(">Q", self._table, place)
        word |= ((1 << count) - 1) << (first + shift)
        struct.pack_into(">Q", self._table, place, word)

    def _place(self, at: int) -> int:
        number, index = divmod(at // CLUSTER, CLUSTER // 16)
        if number != self._number:
            self._flush()
            self._number, self._table = number, bytearray(CLUSTER)
        return index * 16

    def _flush(self) -> None:
        if self._number >= 0:
            os.pwrite(self._descriptor, self._table, self._end)
            self._first[self._number] = self._end | _COPIED
            self._end += CLUSTER


def _clusters(start: int, length: int) -> Iterator[tuple[int, int]]:
    """An extent cut at clusters."""
    end = start + length
    while start < end:
        step = min(end, start - start % CLUSTER + CLUSTER) - start
        yield start, step
        start += step
