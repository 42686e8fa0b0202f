"""A tar writer that gives the same bytes for the same entries: ustar, pax only where ustar ends.

Not `tarfile`, which takes several times as long for a header.  No user names, no access times, no
padding to records of 10 KiB; names are bytes and stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from proa.errors import Unsupported
from proa.image.layer import tar
from proa.image.layer.tar import BLOCK, Entry

GATHER_BYTES = 1 << 18  # small pieces are handed on together: hashing and writing cost per call

_LETTERS = {
    tar.FILE: b"0", tar.HARDLINK: b"1", tar.SYMLINK: b"2", tar.CHARACTER: b"3",
    tar.BLOCKDEV: b"4", tar.DIRECTORY: b"5", tar.FIFO: b"6",
}  # fmt: skip
_NAME, _PREFIX = 100, 155  # bytes of the header's fields
_ID, _SIZE = 0o7777777, 0o77777777777  # what 7 and 11 octal digits hold
_ZEROS = bytes(BLOCK)
_XATTR = b"SCHILY.xattr."


class Sink(Protocol):
    """What can be written to, all of it at once."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take every byte."""


class Writer:
    """Writes entries to a sink; `finish` ends the archive."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._parts: list[bytes | memoryview] = []
        self._gathered = 0

    def add(self, entry: Entry, data: Iterable[bytes | memoryview] = ()) -> None:
        """One member; a file's `data` has exactly `entry.size` bytes and does not change later.

        Of a sparse entry it has the `entry.stored` bytes of its segments.  Raises Unsupported for
        what tar cannot express.
        """
        self._put(header(entry))
        if entry.kind != tar.FILE:
            return
        left = size = entry.size if entry.segments is None else entry.stored
        for piece in data:
            left -= len(piece)
            self._put(piece)
        if left:
            raise ValueError(f"'{entry.name!r}' has not the '{entry.size}' bytes promised")
        if padding := -size % BLOCK:
            self._put(_ZEROS[:padding])

    def finish(self) -> None:
        """End the archive and hand on what is left."""
        self._put(_ZEROS)
        self._put(_ZEROS)
        self._flush()

    def _put(self, data: bytes | memoryview) -> None:
        if len(data) >= GATHER_BYTES:
            self._flush()
            self._sink.write(data)
            return
        self._parts.append(data)
        self._gathered += len(data)
        if self._gathered >= GATHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            self._sink.write(b"".join(self._parts))
            self._parts, self._gathered = [], 0


def header(entry: Entry) -> bytes:
    """The blocks ahead of an entry's data: a pax header when needed, and the entry's own."""
    records: dict[bytes, bytes] = {}
    name, link, prefix = entry.name, entry.link, b""
    if entry.kind == tar.DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    if len(name) > _NAME:
        name, prefix = _split(name, records)
    if len(link) > _NAME:
        records[b"linkpath"] = link
    seconds, nanoseconds = divmod(entry.mtime_ns, 10**9)
    if nanoseconds or not 0 <= seconds <= _SIZE:
        records[b"mtime"] = _time(entry.mtime_ns)
    size = entry.size if entry.kind == tar.FILE else 0
    if entry.segments is not None:  # GNU's pax format 0.1
        places = [number for segment in entry.segments for number in segment]
        records[b"GNU.sparse.size"] = b"%d" % size
        records[b"GNU.sparse.map"] = b",".join(b"%d" % number for number in places)
        size = entry.stored
    numbers = (
        entry.mode & 0o7777,
        _fitting(b"uid", entry.uid, _ID, records),
        _fitting(b"gid", entry.gid, _ID, records),
        _fitting(b"size", size, _SIZE, records),
        min(max(seconds, 0), _SIZE),
    )
    for key, value in entry.xattrs.items():
        if b"=" in key:
            shown = repr(key[:100])[2:-1]
            raise Unsupported(f"a tar cannot have the extended attribute '{shown}'")
        records[_XATTR + key] = value
    block = _block(
        name,
        b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers,
        _LETTERS[entry.kind] + link[:_NAME].ljust(_NAME, b"\0"),
        b"%07o\0%07o\0" % (entry.major, entry.minor) + prefix,
    )
    return _pax(records, entry.name) + block if records else block


def _block(name: bytes, numbers: bytes, kind_and_link: bytes, device_and_prefix: bytes) -> bytes:
    """One header block (POSIX ustar) with its checksum."""
    before = name.ljust(_NAME, b"\0") + numbers
    after = kind_and_link + b"ustar\x0000".ljust(72, b"\0") + device_and_prefix
    after = after.ljust(BLOCK - len(before) - 8, b"\0")
    return b"%b%06o\0 %b" % (before, sum(before) + 8 * 32 + sum(after), after)


def _split(name: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """The fields `name` and `prefix` of a long path; a pax record where they are too short."""
    slash = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if slash > 0 and len(name) - slash - 1 <= _NAME:
        return name[slash + 1 :], name[:slash]
    records[b"path"] = name
    return name[:_NAME], b""


def _fitting(key: bytes, value: int, limit: int, records: dict[bytes, bytes]) -> int:
    if value <= limit:
        return value
    records[key] = b"%d" % value
    return 0


def _time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    if not fraction:
        return b"%b%d" % (sign, whole)
    return (b"%b%d.%09d" % (sign, whole, fraction)).rstrip(b"0")


def _pax(records: dict[bytes, bytes], name: bytes) -> bytes:
    """An extended header (POSIX pax interchange format) with these records, sorted."""
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    base = name.rstrip(b"/").rpartition(b"/")[2][: _NAME - 11]
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, len(data), 0)
    block = _block(b"PaxHeaders/" + base, numbers, b"x".ljust(_NAME + 1, b"\0"), b"")
    return block + data + _ZEROS[: -len(data) % BLOCK]


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    length = size + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
