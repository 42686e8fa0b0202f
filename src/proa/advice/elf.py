"""What a program's file says of the system, the processor and the kernel it is for.  Pure.

Read are the ELF header, the program headers and the notes they point to (gABI chapter 5; the x86
psABI's `.note.gnu.property`; glibc's `.note.ABI-tag`, which LSB 3.1 section 11.2 describes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024  # linkers put headers and notes first
SEGMENTS_MAXIMUM = 64
MACHINES = {
    3: "386",
    8: "mips64le",
    20: "ppc",
    21: "ppc64le",
    22: "s390x",
    40: "arm",
    43: "sparc64",
    50: "ia64",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
}
LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")
KINDS = (2, 3)  # ET_EXEC, ET_DYN

PT_INTERP, PT_NOTE = 3, 4
NT_ABI_TAG, NT_PROPERTY = 1, 5
X86_ISA_NEEDED = 0xC0008002  # GNU_PROPERTY_X86_ISA_1_NEEDED: a bit per level
LINUX = 0  # the system in an ABI tag
OF_TAG = {1: "hurd", 2: "solaris", 3: "freebsd"}  # others in it
OF_HEADER = {2: "netbsd", 6: "solaris", 9: "freebsd", 12: "openbsd"}  # EI_OSABI
OF_INTERPRETER = {
    "/libexec/ld-elf": "freebsd", "/usr/libexec/ld.elf_so": "netbsd",
    "/usr/libexec/ld.so": "openbsd", "/usr/lib/ld.so": "solaris", "/lib/ld.so.1": "hurd",
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """One ELF file: the oldest `kernel` it says it needs, its `level` of LEVELS; empty: unsaid."""

    architecture: str
    interpreter: str = ""
    kernel: tuple[int, ...] = ()
    level: str = ""
    system: str = "linux"


def read(head: bytes) -> Program | None:
    """What the first bytes of a file say; None when it is no program or library, or is broken."""
    try:
        return _read(head)
    except (struct.error, OverflowError, IndexError):
        return None


def _read(head: bytes) -> Program | None:
    if head[:4] != b"\x7fELF" or len(head) < 52:
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    if kind not in KINDS:
        return None
    architecture = MACHINES.get(machine, f"machine {machine}")
    interpreter, level, tagged = "", "", ""
    kernel: tuple[int, ...] = ()
    for segment, offset, size in _segments(head, wide=wide, order=order):
        data = head[offset : offset + size]
        if segment == PT_INTERP:
            interpreter = data.rstrip(b"\0").decode("utf-8", "replace")
        elif segment == PT_NOTE:
            for number, content in _notes(data, wide=wide, order=order):
                if number == NT_ABI_TAG:
                    kernel = kernel or _kernel(content, order)
                    tagged = OF_TAG.get(struct.unpack_from(order + "I", content)[0], "")
                elif number == NT_PROPERTY:
                    level = level or _level(content, wide=wide, order=order)
    system = OF_HEADER.get(head[7], "") or _asked(interpreter) or tagged or "linux"
    return Program(architecture, interpreter, kernel, level, system)


def _asked(interpreter: str) -> str:
    """The system whose dynamic loader that is; empty for Linux's."""
    found = (name for start, name in OF_INTERPRETER.items() if interpreter.startswith(start))
    return next(found, "")


def _segments(head: bytes, *, wide: bool, order: str) -> Iterator[tuple[int, int, int]]:
    """(type, offset, size in the file) of each program header."""
    start = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    for number in range(min(count, SEGMENTS_MAXIMUM)):
        at = start + number * size
        if wide:
            kind, _, offset, _, _, length = struct.unpack_from(order + "IIQQQQ", head, at)
        else:
            kind, offset, _, _, length = struct.unpack_from(order + "IIIII", head, at)
        yield kind, offset, length


def _notes(data: bytes, *, wide: bool, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of GNU's notes.  Property notes of 64-bit files are padded to 8 bytes."""
    at = 0
    while at + 12 <= len(data):
        names, contents, kind = struct.unpack_from(order + "III", data, at)
        body = at + 12 + _padded(names, 4)
        step = 8 if wide and kind == NT_PROPERTY else 4
        if data[at + 12 : at + 12 + names] == b"GNU\0":
            yield kind, data[body : body + contents]
        at = body + _padded(contents, step)


def _kernel(content: bytes, order: str) -> tuple[int, ...]:
    system, *version = struct.unpack_from(order + "IIII", content)
    return tuple(version) if system == LINUX else ()


def _level(content: bytes, *, wide: bool, order: str) -> str:
    at, step = 0, 8 if wide else 4
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, at)
        if kind == X86_ISA_NEEDED:
            bits = struct.unpack_from(order + "I", content, at + 8)[0]
            return LEVELS[min(bits.bit_length(), len(LEVELS)) - 1] if bits else ""
        at += 8 + _padded(size, step)
    return ""


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step
