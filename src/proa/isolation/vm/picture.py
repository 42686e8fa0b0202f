"""Pictures: PNG (W3C PNG specification) from what an old QEMU gives, a PPM; a PNG's size.  Pure."""

from __future__ import annotations

import re
import struct
import zlib

from proa.errors import Corrupt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PPM = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")
_HEADER = struct.Struct(">4sIIBBBBB")
_EIGHT_BITS, _RGB = 8, 2


def from_ppm(data: bytes) -> bytes:
    """A PNG of a binary PPM (P6) with 255 levels.  Raises Corrupt."""
    head = _PPM.match(data)
    if head is None:
        raise Corrupt("the screen's picture is no PPM")
    width, height = int(head[1]), int(head[2])
    row = width * 3
    pixels = memoryview(data)[head.end() :]
    if not width or not height or len(pixels) != row * height:
        raise Corrupt(f"the screen's picture of {width}x{height} has '{len(pixels)}' bytes")
    lines = b"".join(b"\0" + pixels[n * row : (n + 1) * row] for n in range(height))
    header = _HEADER.pack(b"IHDR", width, height, _EIGHT_BITS, _RGB, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(lines, 6), b"IEND")
    return SIGNATURE + b"".join(map(_chunk, chunks))


def _chunk(named: bytes) -> bytes:
    return struct.pack(">I", len(named) - 4) + named + struct.pack(">I", zlib.crc32(named))


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels.  Raises Corrupt."""
    start = len(SIGNATURE) + 4
    if not png.startswith(SIGNATURE) or len(png) < start + _HEADER.size:
        raise Corrupt("the screen's picture is no PNG")
    name, width, height, *_ = _HEADER.unpack_from(png, start)
    if name != b"IHDR" or not width or not height:
        raise Corrupt("the screen's picture is no PNG")
    return width, height
