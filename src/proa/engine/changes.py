"""What a guest changed about its files: the records of the builtin `changes` as a layer's tar.

The guest is hostile.  Every length is bounded before it is believed, and what comes out goes
through the same unpacker as a layer of a registry, so no name in it is ever one on the host.
"""

from __future__ import annotations

import itertools
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from proa import plan
from proa.agent import Agent, Attach
from proa.errors import Cancelled, Corrupt, HostError, Timeout, Unsupported
from proa.host import files
from proa.image.layer import member, pack, sparse, tar, tree, unpack, writer
from proa.image.layer.tar import BLOCK, Entry

RECORD = struct.Struct("<8I2Q")  # docs/protocol.md, "Builtins"
HARD_LINK, XATTR, SPARSE = 1, 4, 16
PIECE = struct.Struct("<2Q")
MAXIMUM_PATH = 4096
MAXIMUM_PIECES = 1024  # of a sparse file
MAXIMUM_XATTRS = 1 << 18  # bytes of one file's, names included
MAXIMUM_BYTES = 64 << 30  # of all files together
CHUNK = 1 << 18
SILENCE_SECONDS = 60.0  # in which a guest that works has sent something
POLL_SECONDS = 0.1
_OPAQUE = b"trusted.overlay.opaque"
_KINDS = {
    stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER, stat.S_IFBLK: tar.BLOCKDEV, stat.S_IFIFO: tar.FIFO,
}  # fmt: skip
_UNTOUCHED_ROOT = (stat.S_IFDIR | 0o755, 0, 0)  # the root of an upper as every disk has it

_numbers = itertools.count(0x5000_0000)  # out of the way of execs' own


def bring(
    agent: Agent,
    device: str,
    into: Path,
    cancel: threading.Event | None = None,
    *,
    names_only: bool = False,
) -> None:
    """Copy the upper directory on a guest's disk into the directory `into`, which is empty.

    With `names_only` files are empty: enough to compare, and soon there.

    Raises Corrupt for what a guest would not send, Cancelled, Timeout, or what unpacking raises.
    """
    trash = into.with_name(f".{into.name}.replaced")
    trash.mkdir(mode=0o700)
    try:
        words = ("changes", device, "names") if names_only else ("changes", device)
        with _asked(agent, words) as connection:
            records = _Received(connection, cancel or threading.Event())
            with tree.reporting("bring a guest's changes to the host"):
                unpack.unpack(_Pieces(layer(records, os.stat(into))), into, trash)
    finally:
        files.remove_tree(trash)


@contextmanager
def _asked(agent: Agent, words: tuple[str, ...]) -> Iterator[socket.socket]:
    """The builtin's output; it runs beside init, whatever became of the place."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            number = next(_numbers)
            agent.attach(number, theirs.fileno(), Attach.OUT)
        agent.exec(number, (plan.Builtin(words),), flags=0)
        yield ours


class Records(Protocol):
    """Where records come from."""

    def read(self, count: int) -> bytes:
        """Exactly so many bytes.  Raises Corrupt when there are no more."""


class _Received:
    """Exact reads from a socket that may be silent for a while only."""

    def __init__(self, connection: socket.socket, cancel: threading.Event) -> None:
        connection.settimeout(POLL_SECONDS)
        self._connection = connection
        self._cancel = cancel
        self._buffer = bytearray()

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        while len(self._buffer) < count:
            self._buffer += self._some()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _some(self) -> bytes:
        end = time.monotonic() + SILENCE_SECONDS
        while True:
            if self._cancel.is_set():
                raise Cancelled("the build was cancelled")
            try:
                data = self._connection.recv(CHUNK)
            except TimeoutError:
                if time.monotonic() > end:
                    raise Timeout("the guest does not send what it changed") from None
                continue
            except OSError:
                data = b""
            if not data:
                raise Corrupt("the guest ended while it sent what it changed")
            return data


class _Pieces:
    """`Source` over pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def layer(records: Records, root: os.stat_result) -> Iterator[bytes]:
    """The records as the tar of a layer, piece by piece.

    A disk's upper directory is root's, mode 0755, whatever the image's: unless it was changed, it
    is `root`.
    """
    attributes: dict[bytes, bytes] = {}
    total = 0
    for _ in range(2 * member.MAXIMUM_ENTRIES):
        head = RECORD.unpack(records.read(RECORD.size))
        path, link = _names(records, head[0], head[1])
        flags, size = head[7], head[8]
        if not path:
            if size:
                reason = os.strerror(size & 0xFFFF).lower()
                raise HostError(f"the guest cannot tell what it changed: {reason}")
            yield bytes(2 * BLOCK)
            return
        if flags & XATTR:
            _add_attribute(attributes, link, size, records)
            continue
        entry = _entry(path, link, head)
        entry.xattrs, attributes = attributes, {}
        if flags & SPARSE:
            _unfold(entry, head[5], records)
        total += entry.stored
        if total > MAXIMUM_BYTES:
            raise Corrupt(f"the guest sends more than '{MAXIMUM_BYTES}' bytes")
        if path == b"." and (head[2], head[3], head[4]) == _UNTOUCHED_ROOT:
            entry.mode, entry.uid, entry.gid = root.st_mode & 0o7777, root.st_uid, root.st_gid
        yield from _member(entry, records)
    raise Corrupt("the guest sends too many records")


def _names(records: Records, path_length: int, link_length: int) -> tuple[bytes, bytes]:
    if path_length > MAXIMUM_PATH or link_length > MAXIMUM_PATH:
        raise Corrupt("the guest sent a path that is too long")
    path, link = records.read(path_length), records.read(link_length)
    if b"\0" in path or b"\0" in link:
        raise Corrupt("the guest sent a name with a zero byte")
    return path, link


def _add_attribute(
    attributes: dict[bytes, bytes], name: bytes, size: int, records: Records
) -> None:
    known = sum(len(key) + len(value) for key, value in attributes.items())
    if known + len(name) + size > MAXIMUM_XATTRS:
        raise Corrupt("the guest sent too many extended attributes")
    attributes[name] = records.read(size)


def _entry(path: bytes, link: bytes, head: tuple[int, ...]) -> Entry:
    _, _, mode, uid, gid, major, minor, flags, size, mtime = head
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        raise Corrupt("the guest sent an unknown kind of file")
    name = path.rpartition(b"/")[2]
    if name.startswith(pack.WHITEOUT):
        shown = os.fsdecode(name[:200])
        raise Unsupported(f"a layer cannot have a file of the name '{shown}'")
    if flags & HARD_LINK:
        kind = tar.HARDLINK
    if size and kind != tar.FILE:
        raise Corrupt("the guest sent content of what is no file")
    seconds_ns = mtime - (1 << 64) if mtime >> 63 else mtime
    device = kind in (tar.CHARACTER, tar.BLOCKDEV)
    return Entry(
        path, kind, stat.S_IMODE(mode), uid, gid, size, seconds_ns, link,
        major & 0xFFF if device else 0, minor & 0xFFFFF if device else 0, stored=size,
    )  # fmt: skip


def _unfold(entry: Entry, count: int, records: Records) -> None:
    """Read the map of a sparse file; what follows are its pieces alone."""
    if entry.kind != tar.FILE or count > MAXIMUM_PIECES:
        raise Corrupt("the guest sent a malformed map of a sparse file")
    pieces = records.read(count * PIECE.size)
    entry.segments = [(offset, length) for offset, length in PIECE.iter_unpack(pieces)]
    entry.stored = sum(length for _, length in entry.segments)
    sparse.check(entry.size, entry.segments, entry.stored)


def _member(entry: Entry, records: Records) -> Iterator[bytes]:
    opaque = entry.kind == tar.DIRECTORY and entry.xattrs.get(_OPAQUE) == b"y"
    entry.xattrs = {
        key: value for key, value in entry.xattrs.items() if not key.startswith(b"trusted.")
    }
    yield writer.header(entry)
    for start in range(0, entry.stored, CHUNK):
        yield records.read(min(CHUNK, entry.stored - start))
    if entry.stored % BLOCK:
        yield bytes(-entry.stored % BLOCK)
    if opaque:
        mark = entry.name + b"/" + pack.OPAQUE_WHITEOUT
        yield writer.header(Entry(mark, tar.FILE, 0, 0, 0, 0, 0))
