"""What is on a partition, by the fixed fields of its superblock; read as bytes, never mounted.

Every number in it is whoever made the disk's: they are shown, compared, and never used as a size.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from proa.image.machine import partition

HEAD_BYTES = 1 << 20  # of each partition that are looked at
MOUNTABLE = ("ext4", "xfs", "btrfs", "vfat")
_BTRFS = 0x10000
_GPT_NAMES = 128


@dataclass(frozen=True)
class Volume:
    """A partition or a whole disk.  `used_bytes` is what its file system says, 0 when unknown."""

    number: int
    kind: str
    uuid: str = ""
    label: str = ""
    used_bytes: int = 0
    part_uuid: str = ""
    part_label: str = ""


def volume(number: int, head: bytes) -> Volume:
    """The kind is a file system's name, `swap`, `lvm`, `luks`, `raid`, or empty."""
    for probe in (_ext4, _xfs, _btrfs, _others, _vfat):
        kind, identity, label, used = probe(head)
        if kind:
            return Volume(number, kind, identity, label, used)
    return Volume(number, "")


Found = tuple[str, str, str, int]
_NOTHING: Found = ("", "", "", 0)


def _text(data: bytes) -> str:
    text = data.split(b"\0")[0].decode("utf-8", "replace")
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _ext4(head: bytes) -> Found:
    if len(head) < 2048 or head[1080:1082] != b"\x53\xef":
        return _NOTHING
    block = head[1024:2048]
    blocks, _, free = struct.unpack_from("<III", block, 4)
    log_size = struct.unpack_from("<I", block, 24)[0]
    if struct.unpack_from("<I", block, 0x60)[0] & 0x80:  # 64 bit
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
        free |= struct.unpack_from("<I", block, 0x158)[0] << 32
    used = max(0, blocks - free) << (10 + min(log_size, 6))
    return "ext4", str(uuid.UUID(bytes=block[0x68:0x78])), _text(block[0x78:0x88]), used


def _xfs(head: bytes) -> Found:
    if head[:4] != b"XFSB" or len(head) < 512:
        return _NOTHING
    size, blocks = struct.unpack_from(">IQ", head, 4)
    free = struct.unpack_from(">Q", head, 144)[0]
    used = max(0, blocks - free) * min(size, 1 << 16)
    return "xfs", str(uuid.UUID(bytes=head[32:48])), _text(head[108:120]), used


def _btrfs(head: bytes) -> Found:
    block = head[_BTRFS : _BTRFS + 4096]
    if block[0x40:0x48] != b"_BHRfS_M":
        return _NOTHING
    used = struct.unpack_from("<Q", block, 0x78)[0]
    return "btrfs", str(uuid.UUID(bytes=block[0x20:0x30])), _text(block[0x12B : 0x12B + 256]), used


def _vfat(head: bytes) -> Found:
    if len(head) < 512 or head[510:512] != b"\x55\xaa":
        return _NOTHING
    for name, serial, label in ((82, 67, 71), (54, 39, 43)):
        if head[name : name + 3] == b"FAT":
            number = f"{struct.unpack_from('<I', head, serial)[0]:08X}"
            text = head[label : label + 11].decode("ascii", "replace").strip()
            return "vfat", f"{number[:4]}-{number[4:]}", text, 0
    return _NOTHING


def _others(head: bytes) -> Found:
    if head[4086:4096] in (b"SWAPSPACE2", b"SWAP-SPACE"):
        return "swap", str(uuid.UUID(bytes=head[0x40C:0x41C])), _text(head[0x41C:0x42C]), 0
    if any(head[at : at + 8] == b"LABELONE" for at in range(0, 2048, 512)):
        return "lvm", "", "", 0
    if head[:6] == b"LUKS\xba\xbe":
        return "luks", "", "", 0
    if head[4096:4100] == b"\xfc\x4e\x2b\xa9":
        return "raid", "", "", 0
    return _NOTHING


def names_of_table(head: bytes) -> dict[int, tuple[str, str]]:
    """PARTUUID and PARTLABEL by number, of the table in a disk's first MiB."""
    for size in (partition.SECTOR, 4096):
        if head[size : size + 8] == b"EFI PART":
            return _gpt(head, size)
    if head[510:512] != b"\x55\xaa":
        return {}
    disk = f"{struct.unpack_from('<I', head, 440)[0]:08x}"
    return {number: (f"{disk}-{number:02x}", "") for number in range(1, 5)}


def _gpt(head: bytes, sector: int) -> dict[int, tuple[str, str]]:
    first = struct.unpack_from("<Q", head, sector + 72)[0]
    count, size = struct.unpack_from("<II", head, sector + 80)
    found: dict[int, tuple[str, str]] = {}
    if not 128 <= size <= 4096 or first > 4096:
        return found
    for number in range(1, min(count, _GPT_NAMES) + 1):
        row = head[first * sector + (number - 1) * size :][:128]
        if len(row) == 128 and any(row[:16]):
            name = row[56:].decode("utf-16-le", "replace").split("\0")[0]
            found[number] = (str(uuid.UUID(bytes_le=row[16:32])), name)
    return found
