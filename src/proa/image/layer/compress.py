"""Layers compressed on their way out: the same bytes in, with the same library, the same out."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from proa.errors import Invalid
from proa.host import libraries
from proa.image.layer.stream import CHUNK, write_all

_GZIP_LEVEL = 6
_FAST_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3
_GZIP_WINDOW = 31  # with gzip's head, which has no time and no name


class Compressor(Protocol):
    """What zlib, isal and zstandard have in common."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _gzip() -> Compressor:
    fast = libraries.find("isal.isal_zlib")
    if fast is not None:
        made: Compressor = fast.compressobj(_FAST_GZIP_LEVEL, wbits=_GZIP_WINDOW)
        return made
    return zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)


def _zstd() -> Compressor:
    library = libraries.need("zstandard", "compressing with zstd")
    made: Compressor = library.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return made


KINDS: dict[str, Callable[[], Compressor]] = {"gzip": _gzip, "zstd": _zstd}


def check(kind: str) -> None:
    """Raises Invalid for a compression nobody knows, Unsupported for one that is not installed."""
    if kind not in KINDS:
        raise Invalid(f"unknown compression '{kind[:40]}'", hint=f"one of: {', '.join(KINDS)}")
    KINDS[kind]()


def compress(source: Path, target: Path, kind: str, told: Callable[[int], None]) -> tuple[str, int]:
    """Write `source` compressed to the new file `target`: digest and size of that.

    `told` hears how many bytes of the source are done.
    """
    compressor, digest, size, done = KINDS[kind](), hashlib.sha256(), 0, 0
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with source.open("rb", buffering=0) as file:
            while data := file.read(CHUNK):
                done += len(data)
                told(done)
                size += _put(fd, digest.update, compressor.compress(data))
        size += _put(fd, digest.update, compressor.flush())
    finally:
        os.close(fd)
    return f"sha256:{digest.hexdigest()}", size


def measured(source: Path, kind: str) -> int:
    """How large a file would be compressed."""
    compressor, size = KINDS[kind](), 0
    with source.open("rb", buffering=0) as file:
        while data := file.read(CHUNK):
            size += len(compressor.compress(data))
    return size + len(compressor.flush())


def _put(fd: int, update: Callable[[bytes], None], data: bytes) -> int:
    update(data)
    write_all(fd, data)
    return len(data)
