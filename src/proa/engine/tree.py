"""The tree records of `tree-out`, `tree-in`, `stat` and `read` (docs/protocol.md), and tar.

Records come from inside an instance: every length is bounded, every path is only ever a name in
a tar, never one on the host.
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from proa.errors import Corrupt, HostError, Invalid, NotFound, ProaError

RECORD = struct.Struct("<IIIIIIIIQQ")
PATH_MAXIMUM = 4096
CHUNK_BYTES = 1 << 18
HARD_LINK, MISSING = 1, 2
TAR_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
}  # fmt: skip
MODE_TYPES = {value: key for key, value in TAR_TYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One record's header; `link` is a symbolic link's target or a hard link's first name."""

    path: str
    link: str
    mode: int
    uid: int
    gid: int
    major: int
    minor: int
    flags: int
    size: int
    mtime_ns: int

    def encode(self) -> bytes:
        """The record without its content."""
        path, link = os.fsencode(self.path), os.fsencode(self.link)
        head = RECORD.pack(
            len(path),
            len(link),
            self.mode,
            self.uid,
            self.gid,
            self.major,
            self.minor,
            self.flags,
            self.size,
            self.mtime_ns,
        )
        return head + path + link


END = Entry("", "", 0, 0, 0, 0, 0, 0, 0, 0)


class Reader:
    """Reads records from a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def entry(self) -> Entry | None:
        """The next record's header; None at the end.  Raises the end record's error, or Corrupt."""
        lengths = RECORD.unpack(self._exactly(RECORD.size))
        path_length, link_length, *numbers = lengths
        if path_length > PATH_MAXIMUM or link_length > PATH_MAXIMUM:
            raise Corrupt("the instance sent a path that is too long")
        path = os.fsdecode(self._exactly(path_length))
        link = os.fsdecode(self._exactly(link_length))
        entry = Entry(path, link, *numbers)
        if not path:
            if entry.size:
                raise error_of(entry.size)
            return None
        return entry

    def content(self, entry: Entry) -> Iterator[bytes]:
        """The content that follows a regular file's header."""
        left = entry.size
        while left:
            data = self._stream.read(min(left, CHUNK_BYTES))
            if not data:
                raise Corrupt("the instance's stream ended early")
            left -= len(data)
            yield data

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise Corrupt("the instance's stream ended early")
        return data


def error_of(number: int) -> ProaError:
    """The typed error of an errno met inside an instance."""
    reason = os.strerror(number).lower()
    if number in (2, 20):
        return NotFound(f"Could not find the file: {reason}")
    return HostError(f"cannot copy: {reason}")


def has_content(entry: Entry) -> bool:
    """Whether bytes follow the header."""
    return stat.S_ISREG(entry.mode) and not entry.flags & HARD_LINK


def to_tar(reader: Reader) -> Iterator[bytes]:
    """A tar stream (pax) of a `tree-out`."""
    while (entry := reader.entry()) is not None:
        kind = TAR_TYPES.get(stat.S_IFMT(entry.mode))
        if kind is None:
            continue  # a socket: tar has none
        member = tarfile.TarInfo(entry.path)
        member.type = tarfile.LNKTYPE if entry.flags & HARD_LINK else kind
        member.mode, member.uid, member.gid = stat.S_IMODE(entry.mode), entry.uid, entry.gid
        member.linkname, member.mtime = entry.link, entry.mtime_ns // 1_000_000_000
        member.devmajor, member.devminor = entry.major, entry.minor
        member.size = entry.size if has_content(entry) else 0
        yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if member.size:
            yield from reader.content(entry)
            yield b"\0" * (-member.size % tarfile.BLOCKSIZE)
    yield b"\0" * tarfile.BLOCKSIZE * 2


def from_tar(archive: BinaryIO) -> Iterator[bytes]:
    """The record stream of a tar, for `tree-in`.  Raises Invalid for a broken tar."""
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as tar:
            for member in tar:
                entry = _entry_of(member)
                if entry is None:
                    continue
                yield entry.encode()
                file = tar.extractfile(member) if member.isreg() else None
                while file is not None and (data := file.read(CHUNK_BYTES)):
                    yield data
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise Invalid(f"the archive cannot be read: {error}") from error
    yield END.encode()


def _entry_of(member: tarfile.TarInfo) -> Entry | None:
    path = os.path.normpath(member.name.lstrip("/"))
    if path in ("", "."):
        return None
    if path.startswith("../") or path == "..":
        raise Invalid(f"the archive names '{member.name}', outside the target")
    hard = member.islnk()
    kind = stat.S_IFREG if hard or member.isreg() else MODE_TYPES.get(member.type)
    if kind is None:
        raise Invalid(f"the archive's '{member.name}' is of an unknown type")
    link = member.linkname if hard or member.issym() else ""
    if hard:
        link = os.path.normpath(link.lstrip("/"))
    return Entry(
        path,
        link,
        kind | (member.mode & 0o7777),
        member.uid,
        member.gid,
        member.devmajor,
        member.devminor,
        HARD_LINK if hard else 0,
        member.size if member.isreg() else 0,
        max(0, int(member.mtime)) * 1_000_000_000,
    )
