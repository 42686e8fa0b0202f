"""Programs of any system by their first bytes: ELF; PE and Mach-O by magic numbers.  Pure."""

from __future__ import annotations

import struct

from proa.advice import elf
from proa.advice.elf import HEAD_BYTES as HEAD_BYTES
from proa.advice.elf import Program

_PE_MACHINES = {0x8664: "amd64", 0x14C: "386", 0xAA64: "arm64"}
_MACH_O = (b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xca\xfe\xba\xbe")


def read(head: bytes) -> Program | None:
    """A program or library; an empty architecture is unsaid.  None for anything else."""
    if head.startswith(b"MZ"):
        return Program(_pe_architecture(head), system="windows")
    if head[:4] in _MACH_O:
        return Program("", system="darwin")
    return elf.read(head)


def _pe_architecture(head: bytes) -> str:
    """PE format, "COFF File Header": behind the signature that the word at 60 points to."""
    try:
        at = struct.unpack_from("<I", head, 60)[0]
        machine = struct.unpack_from("<H", head, at + 4)[0] if head[at : at + 4] == b"PE\0\0" else 0
    except struct.error:
        return ""
    return _PE_MACHINES.get(machine, "")
