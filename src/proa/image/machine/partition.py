"""Partition tables: GPT with a protective MBR (UEFI specification 2.10, chapter 5)."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

SECTOR = 512
ALIGNMENT = 1 << 20
ENTRIES, ENTRY_BYTES = 128, 128
TABLE_SECTORS = ENTRIES * ENTRY_BYTES // SECTOR
BACKUP_SECTORS = TABLE_SECTORS + 1
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")  # x86-64
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")


@dataclass(frozen=True)
class Partition:
    """One row; `start` and `size` in bytes, whole MiB."""

    name: str
    kind: uuid.UUID
    id: uuid.UUID
    start: int
    size: int

    def entry(self) -> bytes:
        """As the table has it."""
        first, last = self.start // SECTOR, (self.start + self.size) // SECTOR - 1
        head = self.kind.bytes_le + self.id.bytes_le + struct.pack("<QQQ", first, last, 0)
        return head + self.name.encode("utf-16-le")[:72].ljust(72, b"\0")


@dataclass(frozen=True)
class Table:
    """What is written at the start and at the end of a disk."""

    primary: bytes
    backup: bytes


def table(disk: uuid.UUID, partitions: Sequence[Partition], disk_bytes: int) -> Table:
    """The table of a disk of `disk_bytes`, a multiple of 512; 440 bytes of boot code stay zero."""
    sectors = disk_bytes // SECTOR
    rows = b"".join(partition.entry() for partition in partitions)
    rows = rows.ljust(ENTRIES * ENTRY_BYTES, b"\0")
    first = _header(disk, rows, sectors, (1, sectors - 1, 2))
    last = _header(disk, rows, sectors, (sectors - 1, 1, sectors - BACKUP_SECTORS))
    return Table(_protective(sectors) + first + rows, rows + last)


def _header(disk: uuid.UUID, rows: bytes, sectors: int, place: tuple[int, int, int]) -> bytes:
    here, other, entries = place
    usable = 2 + TABLE_SECTORS, sectors - BACKUP_SECTORS - 1

    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            b"EFI PART", 0x10000, _HEADER.size, checksum, 0, here, other, *usable,
            disk.bytes_le, entries, ENTRIES, ENTRY_BYTES, zlib.crc32(rows),
        )  # fmt: skip

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")


def _protective(sectors: int) -> bytes:
    """The MBR that tells old tools the disk is in use, and old firmware that it can boot."""
    size = min(sectors - 1, 0xFFFFFFFF)
    row = struct.pack("<B3sB3sII", 0x80, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, size)
    return bytes(440) + bytes(6) + row + bytes(48) + b"\x55\xaa"
