"""Zstandard (RFC 8878), streamed: by the library when it is there, else by the host's program."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO

from proa.errors import Corrupt, Unsupported
from proa.host import libraries
from proa.image.layer import codecs
from proa.image.layer.source import CHUNK, Bounds, Source

_WINDOW_BYTES = 128 << 20  # what `zstd --long` needs; an image's layers stay at 8 MiB
_PIECE = 1 << 18
_CHECKSUM_BYTES = 4
_HINT = "this looks like a decompression bomb"


@contextmanager
def unfolded(source: Source, bounds: Bounds) -> Iterator[Source]:
    """The plain bytes of a zstd stream.

    Raises Corrupt for broken, truncated and bomb-like data, Unsupported when nothing here can
    read zstd.
    """
    library = libraries.find("zstandard")
    if library is not None:
        yield _Streamed(library, source, bounds)
        return
    with _by_program(source, bounds) as plain:
        yield plain


class _Streamed:
    def __init__(self, library: ModuleType, source: Source, bounds: Bounds) -> None:
        self._frames = _Frames(source)
        self._bounds = bounds
        self._error = library.ZstdError
        decoder = library.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        self._reader: Any = decoder.stream_reader(
            self._frames, read_size=_PIECE, read_across_frames=True
        )
        self._written = 0

    def read(self, size: int, /) -> bytes:
        try:
            data: bytes = self._reader.read(size)
        except self._error as error:
            raise Corrupt(f"broken zstd data: {error}") from error
        if not data:
            self._frames.finish()
        self._written += len(data)
        if self._written > self._bounds.slack_bytes + self._bounds.ratio * self._frames.size:
            raise Corrupt(
                f"zstd data unfolds to more than '{self._bounds.ratio}' times its size", hint=_HINT
            )
        return data


class _Frames:
    """Passes a stream on and knows where in its frames it is: a library does not tell a cut.

    `_left` bytes are to be passed over before the next header, which has `_wanted` bytes.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._header = bytearray()
        self._state = self._start
        self._wanted = 4
        self._left = 0
        self._checksum = False
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.size += len(data)
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(self._wanted - len(self._header), len(data) - at)
                self._header += data[at : at + step]
                if len(self._header) == self._wanted:
                    header, self._header = bytes(self._header), bytearray()
                    self._state(header)
            at += step
        return data

    def finish(self) -> None:
        """Raises Corrupt unless the stream stands between two frames."""
        if self._left or self._header or self._state != self._start:
            raise Corrupt("zstd data ends in the middle", hint="the file is truncated")

    def _start(self, header: bytes) -> None:
        if header in codecs.ZSTD_SKIPPABLE:
            self._state = self._skip
        elif header == codecs.ZSTD_MAGIC:
            self._state, self._wanted = self._descriptor, 1
        else:
            raise Corrupt("broken zstd data: no frame begins where one should")

    def _skip(self, header: bytes) -> None:
        self._left, self._state = int.from_bytes(header, "little"), self._start

    def _descriptor(self, header: bytes) -> None:
        flags = header[0]
        single = bool(flags & 0x20)
        size_bytes = (1 if single else 0, 2, 4, 8)[flags >> 6]
        self._checksum = bool(flags & 0x04)
        self._left = (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + size_bytes
        self._state, self._wanted = self._block, 3

    def _block(self, header: bytes) -> None:
        value = int.from_bytes(header, "little")
        last, kind, size = value & 1, value >> 1 & 3, value >> 3
        if kind == 3:
            raise Corrupt("broken zstd data: a block of an unknown kind")
        self._left = 1 if kind == 1 else size
        if last:
            self._left += _CHECKSUM_BYTES if self._checksum else 0
            self._state, self._wanted = self._start, 4


# -- the host's program -------------------------------------------------------------------------


@contextmanager
def _by_program(source: Source, bounds: Bounds) -> Iterator[Source]:
    program = shutil.which("zstd")
    if program is None:
        raise Unsupported(
            "this image is compressed with zstd",
            hint="install the package 'python3-zstandard' or 'zstd'",
        )
    with tempfile.TemporaryFile() as packed:
        while data := source.read(CHUNK):
            packed.write(data)
        limit = bounds.slack_bytes + bounds.ratio * packed.tell()
        packed.seek(0)
        command = [program, "--decompress", "--stdout", "--quiet", "--memory=256MB"]
        with tempfile.TemporaryFile() as said, subprocess.Popen(
            command, stdin=packed, stdout=subprocess.PIPE, stderr=said
        ) as child:  # fmt: skip
            try:
                yield _Checked(child, said, limit)
            finally:
                child.kill()


class _Checked:
    """A child's output, bounded; its failure is an error at the end of it."""

    def __init__(self, child: subprocess.Popen[bytes], said: BinaryIO, limit: int) -> None:
        self._child = child
        self._said = said
        self._left = limit

    def read(self, size: int, /) -> bytes:
        assert self._child.stdout is not None
        data = self._child.stdout.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Corrupt("zstd data unfolds to far more than its size", hint=_HINT)
        if not data and self._child.wait() != 0:
            self._said.seek(0)
            reason = self._said.read(500).decode(errors="replace").strip()
            raise Corrupt(f"broken zstd data: {reason or self._child.returncode}")
        return data
