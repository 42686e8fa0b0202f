"""A streaming tar reader for hostile input: ustar, GNU and pax, long names, sparse files.

Not `tarfile`: that one reads a header of any claimed size into memory, keeps every member, and
takes four times as long.  Here a header is at most 1 MiB, nothing is kept, and everything wrong
is `Corrupt`.  Names stay bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from proa.errors import Corrupt
from proa.image.layer import sparse
from proa.image.layer.sparse import Segment
from proa.image.layer.stream import CHUNK, Source

BLOCK = 512
MAXIMUM_HEADER = 1 << 20  # of pax records or a long name, as Go's reader has it
MAXIMUM_SIZE = 1 << 62
MAXIMUM_TIME_NS = (1 << 40) * 10**9
_XATTR = b"SCHILY.xattr."

FILE, DIRECTORY, SYMLINK, HARDLINK = "file", "directory", "symlink", "link"
CHARACTER, BLOCKDEV, FIFO = "char", "block", "fifo"
_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE, b"1": HARDLINK, b"2": SYMLINK,
    b"3": CHARACTER, b"4": BLOCKDEV, b"5": DIRECTORY, b"6": FIFO,
}  # fmt: skip


# name mode uid gid (size) mtime (sum) kind link magic (version, user, group) major minor prefix
_FIELDS = struct.Struct("100s8s8s8s12x12s8xc100s6s66x8s8s155s12x")
_END = bytes(BLOCK)


@dataclass(slots=True)
class Entry:
    """One member.  `size` is the file's; `stored` bytes of it follow in the stream."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    segments: list[Segment] | None = None  # of a sparse file
    stored: int = 0


class Reader:
    """Iterates over the entries; `chunks` gives the data of the one just seen."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = memoryview(b"")
        self._at = 0  # how far the buffer is used
        self._left = 0  # of the current entry's data
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}

    # -- bytes ----------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Whether there is more."""
        if self._at == len(self._buffer):
            self._buffer, self._at = memoryview(self._source.read(CHUNK)), 0
        return len(self._buffer) > 0

    def _some(self, limit: int) -> memoryview:
        if not self._fill():
            raise Corrupt("the archive ends in the middle", hint="the file is truncated")
        part = self._buffer[self._at : self._at + limit]
        self._at += len(part)
        return part

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes of the stream, at most one header's worth."""
        end = self._at + size
        if end <= len(self._buffer):
            part, self._at = bytes(self._buffer[self._at : end]), end
            return part
        if size > MAXIMUM_HEADER:
            raise Corrupt(f"a header of '{size}' bytes is too large")
        data = bytearray()
        while len(data) < size:
            data += self._some(size - len(data))
        return bytes(data)

    def chunks(self) -> Iterator[memoryview]:
        """The stored data of the current entry, in pieces."""
        while self._left:
            part = self._some(self._left)
            self._left -= len(part)
            yield part

    def read(self, limit: int) -> bytes:
        """The whole data of the current entry, for small files."""
        if self._left > limit:
            raise Corrupt(f"a file of '{self._left}' bytes is too large here")
        return b"".join(self.chunks())

    def _skip(self) -> None:
        while self._left:
            self._left -= len(self._some(self._left))
        while self._padding and self._fill():  # umoci leaves it out at the end
            self._padding -= len(self._some(self._padding))
        self._padding = 0

    # -- entries --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._entry()) is not None:
            yield entry

    def _entry(self) -> Entry | None:
        """The next real entry, the headers that only describe it applied."""
        records = dict(self._globals)
        long_name = long_link = b""
        while True:
            self._skip()
            if not self._fill():
                return None
            header = self.take(BLOCK)
            if header == _END:
                return None
            _check(header)
            kind, size = header[156:157], _number(header[124:136])
            if kind in (b"x", b"X"):
                records = dict(self._globals) | _pax(self._special(size))
            elif kind == b"g":
                self._globals |= _pax(self._special(size))
                if sum(map(len, self._globals.values())) > MAXIMUM_HEADER:
                    raise Corrupt("the global headers of an archive are too large")
                records = dict(self._globals)
            elif kind == b"L":
                long_name = self._special(size).split(b"\0")[0]
            elif kind == b"K":
                long_link = self._special(size).split(b"\0")[0]
            elif kind == b"V":
                self._set_data(size)
            else:
                entry = _entry(header, size)
                entry.name = long_name or entry.name
                entry.link = long_link or entry.link
                return self._finish(entry, header, records)

    def _special(self, size: int) -> bytes:
        if not 0 <= size <= MAXIMUM_HEADER:
            raise Corrupt(f"a header of '{size}' bytes is too large")
        return self.take(size + -size % BLOCK)[:size]

    def _set_data(self, size: int) -> None:
        if not 0 <= size < MAXIMUM_SIZE:
            raise Corrupt(f"invalid size '{size}' in an archive")
        self._left, self._padding = size, -size % BLOCK

    def _finish(self, entry: Entry, header: bytes, records: dict[bytes, bytes]) -> Entry:
        if records:
            _apply(entry, records)
        entry.mtime_ns = max(-MAXIMUM_TIME_NS, min(entry.mtime_ns, MAXIMUM_TIME_NS))
        if entry.kind == FILE and header[156:157] == b"\0" and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY
        if entry.kind != FILE:
            entry.size = 0
        self._set_data(entry.size)
        entry.stored = entry.size
        if entry.kind == FILE:
            self._unfold(entry, header, records)
        if b"\0" in entry.name or b"\0" in entry.link:
            raise Corrupt("a name in an archive contains a zero byte")
        return entry

    def _unfold(self, entry: Entry, header: bytes, records: dict[bytes, bytes]) -> None:
        """Learn the map of a sparse file, in any of the four ways tar has had for it."""
        if header[156:157] == b"S":
            found = sparse.old_gnu(header, lambda: self.take(BLOCK))
        elif records.get(b"GNU.sparse.major") == b"1":
            found = sparse.in_data(records, self._data_block)
        elif b"GNU.sparse.map" in records or b"GNU.sparse.size" in records:
            found = sparse.in_records(records)
        else:
            return
        entry.name = records.get(b"GNU.sparse.name", entry.name)
        entry.size, entry.segments = found
        entry.stored = self._left
        sparse.check(entry.size, entry.segments, entry.stored)

    def _data_block(self) -> bytes:
        if self._left < BLOCK:
            raise Corrupt("the map of a sparse file is cut off")
        self._left -= BLOCK
        return self.take(BLOCK)


def _check(header: bytes) -> None:
    found = sum(header) - sum(header[148:156]) + 8 * 32
    if header[148:156] == b"%06o\0 " % found:  # as nearly everybody writes it
        return
    try:
        promised = _number(header[148:156])
    except Corrupt:
        promised = -1
    if found != promised:
        raise Corrupt("not a tar archive, or a damaged one: a header has a wrong checksum")


@lru_cache(maxsize=4096)
def _number(data: bytes) -> int:
    """A number field: octal text, or GNU's base 256."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big") & ((1 << (8 * len(data) - 1)) - 1)
        return value - (1 << (8 * len(data) - 1)) if data[0] & 0x40 else value
    text = data.split(b"\0", 1)[0].strip()
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise Corrupt(f"invalid number '{text.decode('ascii', 'replace')}' in an archive")
    return int(text, 8)


def _string(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _entry(header: bytes, size: int) -> Entry:
    name, mode, uid, gid, mtime, kind_, link, magic, major, minor, prefix = _FIELDS.unpack(header)
    kind = _KINDS.get(kind_)
    if kind is None:
        shown = kind_.decode("ascii", "replace")
        raise Corrupt(f"unknown kind of file '{shown}' in an archive")
    name = _string(name)
    if magic == b"ustar\0" and prefix[0]:
        name = _string(prefix) + b"/" + name
    device = kind in (CHARACTER, BLOCKDEV)
    return Entry(
        name, kind, _number(mode) & 0o7777, _number(uid), _number(gid), size,
        _number(mtime) * 10**9, _string(link) if link[0] else b"",
        _number(major) if device else 0, _number(minor) if device else 0,
    )  # fmt: skip


def _pax(data: bytes) -> dict[bytes, bytes]:
    """pax records, `length key=value\\n` each."""
    records: dict[bytes, bytes] = {}
    sparse_map: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        length = int(data[at:space]) if space > at and data[at:space].isdigit() else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if length < 5 or at + length > len(data) or record[-1:] != b"\n" or not equals:
            raise Corrupt("a pax header in an archive is malformed")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):  # version 0.0: key repeated
            sparse_map.append(value)
        else:
            records[key] = value
        at += length
    if sparse_map:
        records[b"GNU.sparse.map"] = b",".join(sparse_map)
    return records


def _apply(entry: Entry, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = decimal(value)
        elif key == b"uid":
            entry.uid = decimal(value)
        elif key == b"gid":
            entry.gid = decimal(value)
        elif key == b"mtime":
            entry.mtime_ns = _time_ns(value)


def decimal(value: bytes) -> int:
    """A plain decimal number of reasonable length."""
    if not value.isdigit() or len(value) > 20:
        raise Corrupt(f"invalid number '{value[:30].decode('ascii', 'replace')}' in an archive")
    return int(value)


def _time_ns(value: bytes) -> int:
    whole, _, fraction = value.partition(b".")
    seconds = decimal(whole.lstrip(b"-")) if whole.strip(b"-") else 0
    nanoseconds = decimal(fraction[:9].ljust(9, b"0")) if fraction else 0
    total = seconds * 10**9 + nanoseconds
    return -total if value.startswith(b"-") else total
