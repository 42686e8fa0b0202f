"""What languages' own package managers leave behind: Python, npm, Go."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator

from proa.image.sbom.component import GO, NPM, PYTHON, Component, short
from proa.image.sbom.reading import Found

_MAXIMUM_DOCUMENT = 4 << 20
_PYTHON = re.compile(rb"(.*/)?[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO|egg-info)")
_NPM = re.compile(rb"(.*/)?node_modules/(@[^/]+/)?[^/@]+/package\.json")
_EXECUTABLE_BYTES = 256 << 10  # no Go program is smaller
_ELF_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")  # 64 bits, little endian
_SECTION = struct.Struct("<IIQQQQIIQQ")
_MAXIMUM_SECTIONS = 4096
_BUILD_INFO = b"\xff Go buildinf:"
_BUILD_INFO_HEADER = 32
_INLINE = 2
_SENTINEL_BYTES = 16
_MAXIMUM_BUILD_INFO = 2 << 20


def of(found: Found) -> Iterator[Component]:
    """Components that a file speaks of; none for most files."""
    if _PYTHON.fullmatch(found.path):
        yield from python(found.read(_MAXIMUM_DOCUMENT))
    elif _NPM.fullmatch(found.path):
        yield from npm(found.read(_MAXIMUM_DOCUMENT))
    elif found.mode & 0o111 and found.size >= _EXECUTABLE_BYTES:
        yield from go(_build_info(found))


def python(data: bytes) -> Iterator[Component]:
    """The head of a METADATA or PKG-INFO file (core metadata)."""
    fields: dict[str, str] = {}
    for line in data.split(b"\n"):
        if not line.strip():
            break
        key, colon, value = line.partition(b":")
        if colon and not line.startswith((b" ", b"\t")):
            fields.setdefault(key.decode(errors="replace"), value[:4096].decode(errors="replace"))
    name, version = short(fields.get("Name", "")), short(fields.get("Version", ""))
    if name and version:
        license = short(fields.get("License-Expression") or fields.get("License", ""))
        yield Component(PYTHON, name, version, license=license)


def npm(data: bytes) -> Iterator[Component]:
    """A package.json below node_modules."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    name, version, license = (document.get(key) for key in ("name", "version", "license"))
    if isinstance(name, str) and isinstance(version, str) and (name := short(name)):
        text = short(license) if isinstance(license, str) else ""
        yield Component(NPM, name, short(version), license=text)


def go(text: str) -> Iterator[Component]:
    """The modules of a Go program: lines `mod` and `dep`, and `=>` for what replaces the last."""
    last: list[str] = []
    for line in text.splitlines():
        fields = line.split("\t")
        if fields[0] == "=>" and len(fields) >= 3:
            last = ["dep", *fields[1:]]
        elif fields[0] in ("mod", "dep") and len(fields) >= 3:
            yield from _module(last)
            last = fields
    yield from _module(last)


def _module(fields: list[str]) -> Iterator[Component]:
    if fields and (name := short(fields[1])):
        version = "" if fields[2] == "(devel)" else fields[2]
        yield Component(GO, name, short(version))


def _build_info(found: Found) -> str:
    """The module text of a Go program (debug/buildinfo, from Go 1.18); empty for anything else."""
    try:
        fd = found.open()
    except OSError:
        return ""
    try:
        return inline_text(_go_section(fd))
    except (struct.error, ValueError, OSError, OverflowError):
        return ""
    finally:
        os.close(fd)


def _go_section(fd: int) -> bytes:
    """The section `.go.buildinfo` of an ELF file; empty when there is none."""
    header = os.pread(fd, _ELF_HEADER.size, 0)
    magic, bits, order, *_, offset, _, _, _, _, size, count, names = _ELF_HEADER.unpack(header)
    if (magic, bits, order, size) != (b"\x7fELF", 2, 1, _SECTION.size):
        return b""
    if not 0 < names < count <= _MAXIMUM_SECTIONS:
        return b""
    table = os.pread(fd, count * size, offset)
    sections = [_SECTION.unpack_from(table, number * size) for number in range(count)]
    text = os.pread(fd, min(sections[names][5], 1 << 16), sections[names][4])
    for section in sections:
        if text[section[0] :].startswith(b".go.buildinfo\0"):
            return os.pread(fd, min(section[5], _MAXIMUM_BUILD_INFO), section[4])
    return b""


def inline_text(data: bytes) -> str:
    """The second of the two strings after the header: the modules, between two sentinels."""
    if not data.startswith(_BUILD_INFO) or not data[15:16] or not data[15] & _INLINE:
        return ""
    length, at = _varint(data, _BUILD_INFO_HEADER)
    length, at = _varint(data, at + length)
    return data[at : at + length][_SENTINEL_BYTES:-_SENTINEL_BYTES].decode(errors="replace")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a length is malformed")
