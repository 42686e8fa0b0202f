"""What a program's first bytes say: the system and processor it is for, the kernel it needs.  Pure.

ELF header and notes (gABI chapter 5; `.note.ABI-tag`: LSB 3.1 section 11.2); PE and Mach-O by their
magic numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEAD_BYTES = 64 << 10  # linkers put headers and notes first
_SEGMENTS_MAXIMUM = 64
_ARCHITECTURES = {
    3: "386", 8: "mips64le", 20: "ppc", 21: "ppc64le", 22: "s390x", 40: "arm", 43: "sparc64",
    50: "ia64", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64",
}  # fmt: skip
_SYSTEMS = {2: "netbsd", 6: "solaris", 9: "freebsd", 12: "openbsd"}  # EI_OSABI; others: see notes
_NOTE_SYSTEMS = {0: "linux", 1: "hurd", 2: "solaris", 3: "freebsd"}
_INTERPRETERS = {
    "/libexec/ld-elf": "freebsd", "/usr/libexec/ld.elf_so": "netbsd",
    "/usr/libexec/ld.so": "openbsd", "/usr/lib/ld.so": "solaris", "/lib/ld.so.1": "hurd",
}  # fmt: skip
_PE = (b"MZ", "windows")
_MACH_O = ((b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xca\xfe\xba\xbe"), "darwin")


@dataclass(frozen=True)
class Program:
    """What a file says of itself; `kernel` is the oldest Linux it needs, empty when unsaid."""

    system: str
    architecture: str
    interpreter: str = ""
    kernel: str = ""


def read(head: bytes) -> Program | None:
    """A program or library; None for anything else, or a broken one."""
    if head.startswith(_PE[0]):
        return Program(_PE[1], _pe_architecture(head))
    if head[:4] in _MACH_O[0]:
        return Program(_MACH_O[1], "")
    try:
        return _elf(head)
    except (struct.error, IndexError):
        return None


def _pe_architecture(head: bytes) -> str:
    try:
        at = struct.unpack_from("<I", head, 60)[0]
        machine = struct.unpack_from("<H", head, at + 4)[0] if head[at : at + 4] == b"PE\0\0" else 0
    except struct.error:
        return ""
    return {0x8664: "amd64", 0x14C: "386", 0xAA64: "arm64"}.get(machine, "")


def _elf(head: bytes) -> Program | None:
    if head[:4] != b"\x7fELF" or len(head) < 52:
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    machine = struct.unpack_from(order + "H", head, 18)[0]
    interpreter, kernel, noted = "", "", ""
    for kind, offset, size in _segments(head, wide, order):
        data = head[offset : offset + size]
        if kind == 3:
            interpreter = data[:256].rstrip(b"\0").decode("utf-8", "replace")
        elif kind == 4:
            for system, version in _abi_tags(data, order):
                noted, kernel = system, version if system == "linux" else ""
    system = _SYSTEMS.get(head[7]) or _of_interpreter(interpreter) or noted or "linux"
    return Program(system, _ARCHITECTURES.get(machine, f"machine {machine}"), interpreter, kernel)


def _of_interpreter(path: str) -> str:
    return next((name for start, name in _INTERPRETERS.items() if path.startswith(start)), "")


def _segments(head: bytes, wide: bool, order: str) -> Iterator[tuple[int, int, int]]:
    """(type, offset, size in the file) of each program header."""
    start = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    for number in range(min(count, _SEGMENTS_MAXIMUM)):
        at = start + number * size
        if wide:
            kind, _, offset, _, _, length = struct.unpack_from(order + "IIQQQQ", head, at)
        else:
            kind, offset, _, _, length = struct.unpack_from(order + "IIIII", head, at)
        yield kind, offset, length


def _abi_tags(data: bytes, order: str) -> Iterator[tuple[str, str]]:
    """(system, version) of GNU's ABI notes."""
    at = 0
    while at + 12 <= len(data):
        names, contents, kind = struct.unpack_from(order + "III", data, at)
        body = at + 12 + _padded(names)
        if kind == 1 and contents >= 16 and data[at + 12 : at + 12 + names] == b"GNU\0":
            system, *version = struct.unpack_from(order + "IIII", data, body)
            yield _NOTE_SYSTEMS.get(system, "linux"), ".".join(map(str, version))
        at = body + _padded(contents)


def _padded(size: int) -> int:
    return -(-size // 4) * 4
