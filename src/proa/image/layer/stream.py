"""Byte streams from outside: decompressed, bounded, hashed, in constant memory.

A `Source` is anything with `read(n)` that gives at most n bytes, and none at its end.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from proa.errors import Corrupt, HostError
from proa.image.layer import codecs, zstd
from proa.image.layer.codecs import Decoder
from proa.image.layer.source import CHUNK, STANDARD_BOUNDS, Bounds, Source

__all__ = [
    "CHUNK", "STANDARD_BOUNDS", "Bounds", "Hashed", "Source", "compression_of", "decompressed",
    "write_all",
]  # fmt: skip


_FIRST_PIECE = 4096


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
        self._data = b""
        self._at = 0  # so much of the data went to a decoder
        self._piece = _FIRST_PIECE
        self._read = self._written = 0

    def read(self, size: int, /) -> bytes:
        try:
            data = self._next(size)
        except codecs.failures() as error:
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

    def _fill(self) -> bool:
        """Whether there is more to decode."""
        if self._at == len(self._data):
            self._data, self._at = self._source.read(CHUNK // 4), 0
            self._read += len(self._data)
        return self._at < len(self._data)

    def _feed(self) -> bytes:
        """The next piece: larger and larger, as what is left of it at a member's end is copied."""
        if not self._fill():
            raise Corrupt(f"{self._kind} data ends in the middle", hint="the file is truncated")
        part = self._data[self._at : self._at + self._piece]
        self._at += len(part)
        self._piece *= 2
        return part

    def _start_member(self) -> bool:
        """Whether another member follows; padding with zeros is ignored."""
        self._at -= len(self._decoder.unused_data)
        while self._fill():
            rest = self._data[self._at : self._at + _FIRST_PIECE]
            padding = len(rest) - len(rest.lstrip(b"\0"))
            self._at += padding
            if padding < len(rest):
                self._decoder, self._piece = self._make(), _FIRST_PIECE
                return True
        self._decoder = _Ended()
        return False


class _Ended:
    """What follows the last member: nothing."""

    eof, needs_input, unused_data = True, True, b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return b""


@contextmanager
def decompressed(source: Source, bounds: Bounds = STANDARD_BOUNDS) -> Iterator[Source]:
    """The plain bytes of a stream that may be compressed: told by its first bytes, not its name."""
    head = _head(source)
    plain = _Peeked(head, source)
    for magic, kind, make in codecs.DECODERS:
        if head.startswith(magic):
            yield _Decompressed(plain, kind, make, bounds)
            return
    if codecs.kind_of(head) == "zstd":
        with zstd.unfolded(plain, bounds) as unfolded:
            yield unfolded
        return
    yield plain


def compression_of(path: Path) -> str:
    """How a file is compressed, by its first bytes; empty for not at all."""
    with path.open("rb") as file:
        return codecs.kind_of(file.read(codecs.HEAD_BYTES))


def _head(source: Source) -> bytes:
    head = b""
    while len(head) < codecs.HEAD_BYTES:
        data = source.read(codecs.HEAD_BYTES - len(head))
        if not data:
            break
        head += data
    return head


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
