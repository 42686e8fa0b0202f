"""Processors a program may be made for, by the word images use (OCI's and Go's `GOARCH`)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

_MAGIC_BYTES = 20  # of an ELF header: identification, type, machine
_BYTE_ORDERS = {1: "<", 2: ">"}
_LAYOUTS = {1: ("I", 28, 42), 2: ("Q", 32, 54)}  # by class: of e_phoff, where it and its sizes are


@dataclass(frozen=True)
class Processor:
    """One kind: `machine` is uname's word (and QEMU's), the rest stands in ELF headers (elf(5))."""

    name: str
    machine: str
    bits: int
    elf: int
    order: str = "<"

    def magic(self) -> bytes:
        """The beginning of a program for it."""
        identity = b"\x7fELF" + bytes((self.bits // 32, 1 if self.order == "<" else 2, 1))
        return identity.ljust(16, b"\0") + struct.pack(f"{self.order}HH", 2, self.elf)

    def mask(self) -> bytes:
        """Which bits of it count: any OS/ABI, and position-independent programs too."""
        identity = b"\xff" * 7 + b"\0" + b"\xff" * 8
        return identity + struct.pack(f"{self.order}HH", 0xFFFE, 0xFFFF)


_TABLE = (
    Processor("amd64", "x86_64", 64, 62),
    Processor("arm64", "aarch64", 64, 183),
    Processor("arm", "arm", 32, 40),
    Processor("386", "i386", 32, 3),
    Processor("riscv64", "riscv64", 64, 243),
    Processor("ppc64le", "ppc64le", 64, 21),
    Processor("s390x", "s390x", 64, 22, ">"),
    Processor("loong64", "loongarch64", 64, 258),
)
KNOWN = {processor.name: processor for processor in _TABLE}
_SPELLINGS = {"armv7l": "arm", "armv8l": "arm", "i686": "i386"}


def host() -> str:
    """This machine's, as images call it; uname's own word when no image has one."""
    machine = os.uname().machine
    machine = _SPELLINGS.get(machine, machine)
    return next((item.name for item in _TABLE if item.machine == machine), machine)


def is_foreign(name: str) -> bool:
    """Whether programs for it do not run here by themselves; an image may not say, then they do."""
    return bool(name) and name != host()


def of_program(start: bytes) -> str:
    """What the program with these first bytes is made for, empty when it is none we know."""
    if len(start) < _MAGIC_BYTES:
        return ""
    for item in _TABLE:
        pairs = zip(start, item.magic(), item.mask(), strict=False)
        if all((byte ^ wanted) & bits == 0 for byte, wanted, bits in pairs):
            return item.name
    return ""


def is_static(program: bytes) -> bool:
    """Whether an ELF file asks for no interpreter (PT_INTERP); its headers are enough."""
    try:
        order = _BYTE_ORDERS[program[5]]
        word, table, sizes = _LAYOUTS[program[4]]
        (offset,) = struct.unpack_from(order + word, program, table)
        size, count = struct.unpack_from(f"{order}HH", program, sizes)
        kinds = (
            struct.unpack_from(f"{order}I", program, offset + number * size)[0]
            for number in range(count)
        )
        return all(kind != 3 for kind in kinds)
    except (IndexError, KeyError, struct.error):
        return False
