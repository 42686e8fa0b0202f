"""Formats of virtual disks: which one a file has, and what in it would lead to other files."""

from __future__ import annotations

import struct

from proa.errors import Corrupt, Unsupported

HEAD_BYTES = 1 << 16
_EXTERNAL_DATA, _CORRUPT = 4, 2  # incompatible features of qcow2
_REFUSED = (
    (b"# Disk DescriptorFile", "a vmdk that is spread over other files"),
    (b"COWD", "an old vmdk"),
    (b"conectix", "a vhd"),
    (b"cxsparse", "a vhd"),
    (b"QED\0", "a qed"),
)


def detect(head: bytes) -> str:
    """`qcow2`, `vmdk`, `vhdx`, `vdi` or `raw`, by a file's first bytes.

    Raises Unsupported for a disk with a backing file, other files for its data, or encryption:
    what is imported reads no file but its own.
    """
    for magic, name in _REFUSED:
        if head.startswith(magic):
            raise Unsupported(
                f"{name} is not read", hint="make a qcow2 of it: qemu-img convert -O qcow2 IN OUT"
            )
    if head.startswith(b"QFI\xfb"):
        return _qcow2(head)
    if head.startswith(b"KDMV"):
        return _vmdk(head)
    if head.startswith(b"vhdxfile"):
        return "vhdx"
    return "vdi" if head[0x40:0x44] == b"\x7f\x10\xda\xbe" else "raw"


def virtual_bytes(head: bytes, file_bytes: int) -> int:
    """How large a disk is for the machine that has it; 0 when its first bytes do not tell."""
    kind = detect(head)
    if kind == "qcow2":
        return int(struct.unpack_from(">Q", head, 24)[0])
    if kind == "vmdk":
        return int(struct.unpack_from("<Q", head, 12)[0]) * 512
    if kind == "vdi":
        return int(struct.unpack_from("<Q", head, 0x170)[0])
    return file_bytes if kind == "raw" else 0


def _qcow2(head: bytes) -> str:
    if len(head) < 104:
        raise Corrupt("the qcow2 is cut off")
    version, backing = struct.unpack_from(">IQ", head, 4)
    encrypted = struct.unpack_from(">I", head, 32)[0]
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
    if version not in (2, 3):
        raise Unsupported(f"a qcow of version '{version}' is not read")
    if backing:
        raise Unsupported(
            "the disk has a backing file, which is not followed",
            hint="make it whole: qemu-img convert -O qcow2 IN OUT",
        )
    if features & _EXTERNAL_DATA:
        raise Unsupported("the disk keeps its data in another file, which is not followed")
    if features & _CORRUPT:
        raise Corrupt("the qcow2 is marked as damaged", hint="see qemu-img check")
    if encrypted:
        raise Unsupported("the disk is encrypted")
    return "qcow2"


def _vmdk(head: bytes) -> str:
    if len(head) < 512:
        raise Corrupt("the vmdk is cut off")
    capacity, _, start, sectors = struct.unpack_from("<QQQQ", head, 12)
    described = head[start * 512 : (start + min(sectors, 64)) * 512] if start < 128 else b""
    if capacity == 0 or b"parentFileNameHint" in described:
        raise Unsupported("the vmdk needs other files, which are not followed")
    return "vmdk"
