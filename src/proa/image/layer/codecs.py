"""What unfolds compressed streams: libraries made for speed when there are any, else Python's own.

Every decoder has the shape of `bz2.BZ2Decompressor`, so that output is bounded at each call.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from proa.host import libraries

_XZ_MEMORY_BYTES = 256 << 20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))


class Decoder(Protocol):
    """The shape `bz2`, `lzma`, `isal` and our `_Gzip` decompressors share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib in the shape of `bz2.BZ2Decompressor`."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


@cache
def _igzip() -> Any:
    """Intel's inflate: twice as fast as zlib; None when it is not installed."""
    return libraries.find("isal.igzip_lib")


def gzip() -> Decoder:
    """The fastest decoder of gzip there is here."""
    fast = _igzip()
    if fast is None:
        return _Gzip()
    made: Decoder = fast.IgzipDecompressor(flag=fast.DECOMP_GZIP)
    return made


def _xz() -> Decoder:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)


DECODERS: tuple[tuple[bytes, str, Callable[[], Decoder]], ...] = (
    (b"\x1f\x8b", "gzip", gzip),
    (b"\xfd7zXZ\x00", "xz", _xz),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
)
HEAD_BYTES = 6


def failures() -> tuple[type[Exception], ...]:
    """What decoders raise when their input is broken."""
    fast = _igzip()
    own = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
    return own if fast is None else (*own, fast.IsalError)


def kind_of(head: bytes) -> str:
    """The compression of what begins so; empty for none."""
    for magic, kind, _ in DECODERS:
        if head.startswith(magic):
            return kind
    return "zstd" if head.startswith((ZSTD_MAGIC, *ZSTD_SKIPPABLE)) else ""
