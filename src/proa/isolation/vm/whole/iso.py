"""A small writer of ISO 9660 images: a root directory of files, with Rock Ridge and Joliet names.

Sections are those of ECMA-119 (ISO 9660), of Rock Ridge ("RRIP") 1.09 and SUSP 1.09 below it, and
of Joliet.  Linux and the BSDs read the Rock Ridge names, Windows the Joliet ones.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from proa.errors import Invalid

SECTOR = 2048
FILES_MAXIMUM = 8  # a directory of one sector holds them, whatever their names
NAME_MAXIMUM = 48
SIZE_MAXIMUM_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LABEL = re.compile(r"[A-Z0-9_]{1,16}")
# Sectors: 16 system area, the descriptors, path tables, the two root directories, the files.
_DESCRIPTORS = 16
_TABLES = _DESCRIPTORS + 3  # primary, Joliet; little endian, then big endian
_PRIMARY, _JOLIET = _TABLES + 4, _TABLES + 5
_FIRST = _JOLIET + 1
_DATE = bytes((80, 1, 1, 0, 0, 0, 0))  # 1980: the same content makes the same image
_LONG_DATE, _NO_DATE = b"1980010100000000\0", b"0" * 16 + b"\0"
_SUSP = b"SP\x07\x01\xbe\xef\x00"  # SUSP 5.3, then 5.5: these are Rock Ridge fields
_ROCK_RIDGE = b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A"
_DIRECTORY = 2  # file flags, 9.1.6


@dataclass(frozen=True)
class _Entry:
    """A file: where its content begins, and its length in bytes."""

    name: str
    sector: int
    size: int
    mode: int


def build(label: str, files: Mapping[str, bytes], programs: frozenset[str] = frozenset()) -> bytes:
    """An image with these files in its root; `programs` may be executed.  Raises Invalid."""
    if not _LABEL.fullmatch(label):
        raise Invalid(f"'{label}' is no label of a disk")
    if len(files) > FILES_MAXIMUM or sum(map(len, files.values())) > SIZE_MAXIMUM_BYTES:
        raise Invalid(f"too much for the disk '{label}'")
    entries: list[_Entry] = []
    content = bytearray()
    for name, data in sorted(files.items()):
        if not _NAME.fullmatch(name) or len(name) > NAME_MAXIMUM:
            raise Invalid(f"'{name}' is no name of a file on the disk '{label}'")
        mode = 0o100555 if name in programs else 0o100444
        entries.append(_Entry(name, _FIRST + len(content) // SECTOR, len(data), mode))
        content += _padded(data)
    sectors = _FIRST + len(content) // SECTOR
    return b"".join((
        bytes(_DESCRIPTORS * SECTOR),
        _descriptor(1, label.encode(), sectors),
        _descriptor(2, label.encode("utf-16-be"), sectors),
        _padded(b"\xffCD001\x01"),
        *(_padded(_path_table(root, order)) for root in (_PRIMARY, _JOLIET) for order in "<>"),
        _padded(_primary(entries)),
        _padded(_joliet(entries)),
        content,
    ))  # fmt: skip


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % SECTOR)


def _both(number: int) -> bytes:
    """A number in both byte orders, 7.3.3."""
    return struct.pack("<I", number) + struct.pack(">I", number)


def _both_short(number: int) -> bytes:
    return struct.pack("<H", number) + struct.pack(">H", number)


def _descriptor(kind: int, label: bytes, sectors: int) -> bytes:
    """A volume descriptor: primary (8.4), or supplementary of Joliet's third level."""
    joliet = kind == 2
    blank = b"\0 " if joliet else b" "
    root, table = (_JOLIET, _TABLES + 2) if joliet else (_PRIMARY, _TABLES)

    def text(length: int, content: bytes = b"") -> bytes:
        return (content + blank * length)[:length]

    return b"".join((
        bytes((kind,)), b"CD001\x01\0", text(32), text(32, label), bytes(8), _both(sectors),
        b"%/E".ljust(32, b"\0") if joliet else bytes(32),
        _both_short(1), _both_short(1), _both_short(SECTOR), _both(len(_path_table(root, "<"))),
        struct.pack("<II", table, 0), struct.pack(">II", table + 1, 0),
        _record(b"\0", root, SECTOR, flags=_DIRECTORY),
        text(128), text(128), text(128), text(128), text(37), text(37), text(37),
        _LONG_DATE, _LONG_DATE, _NO_DATE, _LONG_DATE, b"\x01\0", bytes(512 + 653),
    ))  # fmt: skip


def _path_table(root: int, order: str) -> bytes:
    """The root alone, 9.4."""
    return struct.pack(f"{order}BBIH", 1, 0, root, 1) + b"\0\0"


def _record(name: bytes, sector: int, size: int, *, flags: int = 0, system: bytes = b"") -> bytes:
    """A directory record, 9.1."""
    name += b"\0" * (len(name) % 2 == 0)
    system += b"\0" * (len(system) % 2)
    identifier = len(name) - (name.endswith(b"\0") and len(name) > 1)
    head = _both(sector) + _both(size) + _DATE + bytes((flags, 0, 0)) + _both_short(1)
    return (
        bytes((34 - 1 + len(name) + len(system), 0)) + head + bytes((identifier,)) + name + system
    )


def _primary(entries: list[_Entry]) -> bytes:
    """Names of 8.3, as 6.8.1 wants, and the real ones by Rock Ridge."""
    root = _attributes(0o40555, 2)
    records = [
        _record(b"\0", _PRIMARY, SECTOR, flags=_DIRECTORY, system=_SUSP + root + _ROCK_RIDGE),
        _record(b"\1", _PRIMARY, SECTOR, flags=_DIRECTORY, system=root),
    ]
    for number, entry in enumerate(entries):
        name = f"FILE{number:04}.;1".encode()
        real = entry.name.encode()
        fields = _attributes(entry.mode, 1) + b"NM" + bytes((5 + len(real), 1, 0)) + real
        records.append(_record(name, entry.sector, entry.size, system=fields))
    return b"".join(records)


def _attributes(mode: int, links: int) -> bytes:
    """PX, RRIP 4.1.1: mode, links, owner, group."""
    return b"PX\x24\x01" + _both(mode) + _both(links) + _both(0) + _both(0)


def _joliet(entries: list[_Entry]) -> bytes:
    records = [_record(mark, _JOLIET, SECTOR, flags=_DIRECTORY) for mark in (b"\0", b"\1")]
    for entry in sorted(entries, key=lambda entry: entry.name.encode("utf-16-be")):
        name = entry.name.encode("utf-16-be")
        records.append(_record(name, entry.sector, entry.size))
    return b"".join(records)
