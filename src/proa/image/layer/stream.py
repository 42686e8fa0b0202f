"""Byte streams from outside: decompressed, bounded, hashed, in constant memory.

A `Source` is anything with `read(n)` that gives at most n bytes, and none at its end.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from proa.errors import Corrupt, HostError, Unsupported

CHUNK = 1 << 20
_XZ_MEMORY_BYTES = 256 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"


class Source(Protocol):
    """What can be read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Decoder(Protocol):
    """The shape `bz2`, `lzma` and our `_Gzip` decompressors share."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


@dataclass(frozen=True)
class Bounds:
    """How far a compressed stream may unfold: `slack_bytes` plus `ratio` times what was read.

    Real layers stay below 10; a gzip bomb reaches 1000.
    """

    slack_bytes: int = 1 << 30
    ratio: int = 250


STANDARD_BOUNDS = Bounds()


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


def _xz() -> Decoder:
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)


_DECODERS: tuple[tuple[bytes, str, Callable[[], Decoder]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"\xfd7zXZ\x00", "xz", _xz),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
)
_HEAD_BYTES = 6


class _Peeked:
    """A source whose first bytes were looked at already."""

    def __init__(self, head: bytes, source: Source) -> None:
        self._head = head
        self._source = source

    def read(self, size: int, /) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._source.read(size)


class _Decompressed:
    """Members of one compression, one after the other, as one stream."""

    def __init__(
        self, source: Source, kind: str, make: Callable[[], Decoder], bounds: Bounds
    ) -> None:
        self._source = source
        self._kind = kind
        self._make = make
        self._bounds = bounds
        self._decoder: Decoder = make()
        self._read = self._written = 0

    def read(self, size: int, /) -> bytes:
        try:
            data = self._next(size)
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise Corrupt(f"broken {self._kind} data: {error}") from error
        self._written += len(data)
        if self._written > self._bounds.slack_bytes + self._bounds.ratio * self._read:
            raise Corrupt(
                f"{self._kind} data unfolds to more than '{self._bounds.ratio}' times its size",
                hint="this looks like a decompression bomb",
            )
        return data

    def _next(self, size: int) -> bytes:
        while True:
            if self._decoder.eof and not self._start_member():
                return b""
            feed = self._feed() if self._decoder.needs_input else b""
            data = self._decoder.decompress(feed, size)
            if data:
                return data

    def _feed(self) -> bytes:
        data = self._source.read(CHUNK // 4)
        if not data:
            raise Corrupt(f"{self._kind} data ends in the middle", hint="the file is truncated")
        self._read += len(data)
        return data

    def _start_member(self) -> bool:
        """Whether another member follows; padding with zeros is ignored."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest:
            data = self._source.read(CHUNK // 4)
            if not data:
                return False
            self._read += len(data)
            rest = data.lstrip(b"\0")
        self._decoder = self._make()
        self._source = _Peeked(rest, self._source)
        self._read -= len(rest)
        return True


@contextmanager
def decompressed(source: Source, bounds: Bounds = STANDARD_BOUNDS) -> Iterator[Source]:
    """The plain bytes of a stream that may be compressed: told by its first bytes, not its name."""
    head = _head(source)
    plain = _Peeked(head, source)
    for magic, kind, make in _DECODERS:
        if head.startswith(magic):
            yield _Decompressed(plain, kind, make, bounds)
            return
    if head.startswith(_ZSTD):
        with _zstd(plain, bounds) as unfolded:
            yield unfolded
        return
    yield plain


def compression_of(path: Path) -> str:
    """How a file is compressed, by its first bytes; empty for not at all."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    kinds = [(magic, kind) for magic, kind, _ in _DECODERS] + [(_ZSTD, "zstd")]
    return next((kind for magic, kind in kinds if head.startswith(magic)), "")


def _head(source: Source) -> bytes:
    head = b""
    while len(head) < _HEAD_BYTES:
        data = source.read(_HEAD_BYTES - len(head))
        if not data:
            break
        head += data
    return head


class _Bounded:
    """Refuses to give more than so many bytes."""

    def __init__(self, source: Source, limit: int, kind: str) -> None:
        self._source = source
        self._left = limit
        self._kind = kind

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Corrupt(
                f"{self._kind} data unfolds to far more than its size",
                hint="this looks like a decompression bomb",
            )
        return data


@contextmanager
def _zstd(source: Source, bounds: Bounds) -> Iterator[Source]:
    """Zstandard through the host's `zstd`: Python 3.11 has none of its own."""
    program = shutil.which("zstd")
    if program is None:
        raise Unsupported("this image is compressed with zstd", hint="install the package 'zstd'")
    with tempfile.TemporaryFile() as packed:
        while data := source.read(CHUNK):
            packed.write(data)
        limit = bounds.slack_bytes + bounds.ratio * packed.tell()
        packed.seek(0)
        command = [program, "--decompress", "--stdout", "--quiet", "--memory=256MB"]
        with tempfile.TemporaryFile() as said, subprocess.Popen(
            command, stdin=packed, stdout=subprocess.PIPE, stderr=said
        ) as child:  # fmt: skip
            assert child.stdout is not None
            try:
                yield _Bounded(_Checked(child, said), limit, "zstd")
            finally:
                child.kill()


class _Checked:
    """The output of a child whose failure is an error at the end of its output."""

    def __init__(self, child: subprocess.Popen[bytes], said: BinaryIO) -> None:
        self._child = child
        self._said = said

    def read(self, size: int, /) -> bytes:
        assert self._child.stdout is not None
        data = self._child.stdout.read(size)
        if not data and self._child.wait() != 0:
            self._said.seek(0)
            reason = self._said.read(500).decode(errors="replace").strip()
            raise Corrupt(f"broken zstd data: {reason or self._child.returncode}")
        return data


class Hashed:
    """Counts and hashes what passes through."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        """Read what is left, for its digest."""
        while self.read(CHUNK):
            pass

    @property
    def digest(self) -> str:
        """Of everything read so far."""
        return f"sha256:{self._hash.hexdigest()}"


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte (write(2) may stop early on a signal or a nearly full disk)."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if written == 0:
            raise HostError("a write wrote nothing")
        view = view[written:]
