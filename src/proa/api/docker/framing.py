"""Docker's stream framing: one byte of stream, three of nothing, four of length, then the bytes."""

from __future__ import annotations

import struct

STDOUT, STDERR = 1, 2


def frame(stream: int, data: bytes) -> bytes:
    """One frame."""
    return struct.pack(">BxxxI", stream, len(data)) + data
