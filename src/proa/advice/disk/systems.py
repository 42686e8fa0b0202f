"""Which system a disk is of, when no root of Linux is found: by its partitions.  Pure."""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proa.advice.disk.tree import Tree

# Bytes of a partition table's row, UEFI's and MBR's → system.
_GUIDS = {
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": ("windows", "Microsoft's reserved partition"),
    "516e7cb4-6ecf-11d6-8ff8-00022d09712b": ("freebsd", "a partition of FreeBSD"),
    "516e7cb5-6ecf-11d6-8ff8-00022d09712b": ("freebsd", "a swap partition of FreeBSD"),
    "516e7cb6-6ecf-11d6-8ff8-00022d09712b": ("freebsd", "a UFS partition of FreeBSD"),
    "516e7cba-6ecf-11d6-8ff8-00022d09712b": ("freebsd", "a ZFS partition of FreeBSD"),
    "83bd6b9d-7f41-11dc-be0b-001560b84f0f": ("freebsd", "FreeBSD's boot code"),
    "824cc7a0-36a8-11e3-890a-952519ad3f61": ("openbsd", "a partition of OpenBSD"),
    "49f48d5a-b10e-11dc-b99b-0019d1879648": ("netbsd", "a partition of NetBSD"),
    "48465300-0000-11aa-aa11-00306543ecac": ("macos", "an HFS+ partition"),
    "7c3457ef-0000-11aa-aa11-00306543ecac": ("macos", "an APFS container"),
    "6a898cc3-1dd2-11b2-99a6-080020736631": ("solaris", "a /usr partition of Solaris, or ZFS"),
    "6a85cf4d-1dd2-11b2-99a6-080020736631": ("solaris", "a root partition of Solaris"),
}  # fmt: skip
_TYPES = {
    0x06: ("dos", "a FAT16 partition alone"), 0x07: ("windows", "an NTFS partition's type"),
    0x27: ("windows", "Windows' recovery partition"),
    0x63: ("unix", "a System V partition"), 0xA5: ("freebsd", "a slice of 386BSD"),
    0xA6: ("openbsd", "a slice of OpenBSD"), 0xA9: ("netbsd", "a slice of NetBSD"),
    0xAF: ("macos", "an HFS partition"), 0xBF: ("solaris", "a slice of Solaris"),
    0xEB: ("haiku", "a partition of BeOS"), 0x4D: ("qnx", "a partition of QNX"),
    0x81: ("minix", "a partition of Minix"),
}  # fmt: skip
_LOADERS = (
    (r"/lib(?:64)?/ld-linux-x86-64\.so\.2|/lib/ld-musl-x86_64\.so\.1", "amd64"),
    (r"/lib/ld-linux-aarch64\.so\.1|/lib/ld-musl-aarch64\.so\.1", "arm64"),
    (r"/lib/ld-linux-armhf\.so\.3|/lib/ld-musl-armhf\.so\.1|/lib/ld-linux\.so\.3", "arm"),
    (r"/lib/ld-linux-riscv64-lp64d\.so\.1|/lib/ld-musl-riscv64\.so\.1", "riscv64"),
    (r"/lib(?:64)?/ld64\.so\.2|/lib/ld-musl-powerpc64le\.so\.1", "ppc64le"),
    (r"/lib/ld64\.so\.1|/lib/ld-musl-s390x\.so\.1", "s390x"),
    (r"/lib/ld-linux\.so\.2|/lib/ld-musl-i386\.so\.1", "386"),
)
_BSD_LABEL = 0x82564557


@dataclass(frozen=True)
class System:
    """A system, and what says so."""

    name: str
    source: str


def of(disk: bytes, partitions: Sequence[tuple[int, bytes]]) -> System | None:
    """By the heads (1 MiB) of a disk and of its partitions by number; None when nothing tells."""
    found = [*_contents(disk, partitions), *_table(disk)]
    sure = [item for item in found if item.name != "dos"]
    return next(iter(sure or found), None)


def _contents(disk: bytes, partitions: Sequence[tuple[int, bytes]]) -> Iterator[System]:
    for number, head in (*partitions, (0, disk)):
        where = f"partition {number}" if number else "the disk's beginning"
        if head[3:11] == b"NTFS    ":
            yield System("windows", f"{where}: an NTFS file system")
        if head[3:11] == b"EXFAT   ":
            yield System("windows", f"{where}: an exFAT file system")
        if head[32:36] == b"NXSB" or head[1024:1026] in (b"H+", b"HX"):
            yield System("macos", f"{where}: a file system of Apple's")
        for at in (8192 + 1372, 65536 + 1372):  # fs_magic of UFS2 and UFS1 (sys/ufs/ffs/fs.h)
            if head[at : at + 4] in (b"\x19\x01\x54\x19", b"\x19\x54\x01\x19"):
                yield System(_bsd_of(disk), f"{where}: a UFS file system")
        for at in (0, 512):
            if len(head) >= at + 136 and struct.unpack_from("<I", head, at)[0] == _BSD_LABEL:
                yield System(_bsd_of(disk), f"{where}: a BSD disk label")


def _bsd_of(disk: bytes) -> str:
    """Which of the BSDs, by the table."""
    named = [item.name for item in _table(disk) if item.name.endswith("bsd")]
    return named[0] if named else "bsd"


def _table(disk: bytes) -> Iterator[System]:
    for number, kind in rows(disk):
        if kind in _GUIDS:
            name, what = _GUIDS[kind]
            yield System(name, f"partition {number} of the table: {what}")
        elif len(kind) == 2 and int(kind, 16) in _TYPES:
            name, what = _TYPES[int(kind, 16)]
            yield System(name, f"partition {number} of the table: {what} (type {kind})")


def rows(disk: bytes) -> list[tuple[int, str]]:
    """(number, type) of the partitions: a GUID, or two hexadecimal digits of an MBR."""
    for sector in (512, 4096):
        if disk[sector : sector + 8] == b"EFI PART" and len(disk) >= sector + 92:
            first = struct.unpack_from("<Q", disk, sector + 72)[0]
            count, size = struct.unpack_from("<II", disk, sector + 80)
            if 128 <= size <= 4096 and first < 4096:
                return list(_gpt(disk[first * sector :], min(count, 128), size))
    if disk[510:512] != b"\x55\xaa":
        return []
    kinds = [(number, disk[446 + 16 * (number - 1) + 4]) for number in range(1, 5)]
    return [(number, f"{kind:02x}") for number, kind in kinds if kind]


def _gpt(data: bytes, count: int, size: int) -> Iterator[tuple[int, str]]:
    for number in range(1, count + 1):
        row = data[(number - 1) * size :][:16]
        if len(row) == 16 and any(row):
            yield number, str(uuid.UUID(bytes_le=row))


def architecture(tree: Tree) -> str:
    """By the names of its dynamic loaders, in OCI's word; empty when there is none."""
    for pattern, name in _LOADERS:
        compiled = re.compile(rf"(?:/usr)?(?:{pattern})")
        if any(compiled.fullmatch(path) for path in tree.entries):
            return name
    return ""
