"""What a `.deb` holds: an ar archive of two compressed tars, control and data (deb(5))."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from proa.errors import Corrupt
from proa.image.layer import tar
from proa.image.layer.stream import Source, decompressed

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_MAXIMUM_CONTROL_BYTES = 1 << 20


class _Member:
    """A part of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        if not data and self._left:
            raise Corrupt("a package ends in the middle")
        self._left -= len(data)
        return data


@contextmanager
def data(path: Path) -> Iterator[Source]:
    """The plain tar of a package's files."""
    with _member(path, b"data.tar") as packed, decompressed(packed) as plain:
        yield plain


def control(path: Path) -> str:
    """The text of its control file."""
    with _member(path, b"control.tar") as packed, decompressed(packed) as plain:
        reader = tar.Reader(plain)
        for entry in reader:
            if entry.name.removeprefix(b"./") != b"control" or entry.kind != tar.FILE:
                continue
            if entry.size > _MAXIMUM_CONTROL_BYTES:
                raise Corrupt(f"the control file of '{path.name}' is too large")
            return b"".join(bytes(piece) for piece in reader.chunks()).decode(errors="replace")
    raise Corrupt(f"the package '{path.name}' has no control file")


@contextmanager
def _member(path: Path, wanted: bytes) -> Iterator[_Member]:
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise Corrupt(f"'{path.name}' is not a debian package")
        while header := file.read(_HEADER_BYTES):
            size = header[48:58].strip()
            if len(header) < _HEADER_BYTES or header[58:] != b"`\n" or not size.isdigit():
                raise Corrupt(f"the package '{path.name}' is malformed")
            if header[:16].split(b"/")[0].strip().startswith(wanted):
                yield _Member(file, int(size))
                return
            file.seek(int(size) + int(size) % 2, 1)
    raise Corrupt(f"the package '{path.name}' has no '{wanted.decode()}'")
