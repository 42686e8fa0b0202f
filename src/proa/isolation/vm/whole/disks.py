"""The disk of a whole machine: an overlay over somebody's disk, or an empty one to install on."""

from __future__ import annotations

import os
from pathlib import Path

from proa.errors import Invalid
from proa.isolation.vm import layers, qcow2
from proa.isolation.vm.layers import Chain, Layer
from proa.isolation.vm.whole.arguments import DISK
from proa.isolation.vm.whole.board import BIOS, UEFI

SECTOR = 512
EMPTY_DISK_BYTES = 16 << 30
_HEAD_SECTORS = 34  # the first partition table and all of its usual entries
_BOOT_CODE_BYTES = 440
_EFI_SYSTEM = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")  # as it is in a GPT
_EFI_SYSTEM_MBR = 0xEF


def prepare(directory: Path, base: Path | None, format: str, wanted_bytes: int) -> Chain:
    """The disk the instance has, else a new one.  Raises Invalid for one smaller than its base."""
    chains = layers.load(directory)
    if DISK in chains:
        return chains[DISK]
    layers.sweep(directory)
    if base is None:
        return Chain((layers.zeros(directory / layers.FIRST, wanted_bytes or EMPTY_DISK_BYTES),))
    below = layers.base(base, format)
    least = -(-layers.virtual_bytes(below) // SECTOR) * SECTOR
    if wanted_bytes and wanted_bytes < least:
        raise Invalid(
            f"a disk of '{wanted_bytes}' bytes is smaller than '{base}'",
            hint=f"it needs {least} bytes; a disk only grows",
        )
    return layers.over(directory, DISK, below, wanted_bytes or least)


def boots_by(disk: Chain) -> str:
    """The firmware a disk is made for: UEFI when only that finds something to boot on it."""
    head = _head(disk.layers[-1])
    if any(head[:_BOOT_CODE_BYTES]):
        return BIOS
    entries = head[2 * SECTOR :]
    gpt = head[SECTOR : SECTOR + 8] == b"EFI PART"
    types = [entries[at : at + 16] for at in range(0, len(entries), 128)] if gpt else []
    mbr = [head[at] for at in range(450, 514, 16)] if len(head) > SECTOR else []
    return UEFI if _EFI_SYSTEM in types or _EFI_SYSTEM_MBR in mbr else BIOS


def _head(layer: Layer) -> bytes:
    """A disk's first sectors, where they can be had without QEMU; else nothing."""
    length = _HEAD_SECTORS * SECTOR
    descriptor = layers.open_layer(layer)
    try:
        if layer.format == "raw":
            return os.pread(descriptor, length, 0)
        if layer.format != "qcow2":
            return b""
        return _qcow2_head(descriptor, length)
    finally:
        os.close(descriptor)


def _qcow2_head(descriptor: int, length: int) -> bytes:
    head = bytearray(length)
    for extent in qcow2.extents(descriptor, qcow2.header(descriptor)):
        if extent.start >= length:
            break
        if extent.compressed:
            return b""
        if extent.offset >= 0:
            count = min(extent.length, length - extent.start)
            head[extent.start : extent.start + count] = os.pread(descriptor, count, extent.offset)
    return bytes(head[:length])
