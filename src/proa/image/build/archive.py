"""ADD of an archive: its members written into a stage's root, as `tar -x` below the destination.

Names and links resolve with the destination as the root of everything; what is in the way of a
member goes, but for a directory in the way of a directory.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from proa.errors import Corrupt, Invalid
from proa.image.build import place as places
from proa.image.build.place import Target
from proa.image.layer import member, tar
from proa.image.layer.stream import STANDARD_BOUNDS, Bounds, decompressed, write_all
from proa.image.layer.tar import Entry

_KINDS = {tar.FIFO: stat.S_IFIFO, tar.CHARACTER: stat.S_IFCHR, tar.BLOCKDEV: stat.S_IFBLK}


@dataclass(frozen=True)
class _File:
    fd: int

    def read(self, size: int, /) -> bytes:
        return os.read(self.fd, size)


def is_archive(fd: int) -> bool:
    """Whether a regular file is a tar with a member at least, compressed or not; by content."""
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        with decompressed(_File(fd)) as plain:
            return next(iter(tar.Reader(plain)), None) is not None
    except Corrupt:
        return False
    finally:
        os.lseek(fd, 0, os.SEEK_SET)


def unpack(
    fd: int, target: Target, owner: tuple[int, int] | None, bounds: Bounds = STANDARD_BOUNDS
) -> None:
    """Write every member below the root of `target`.  Raises Corrupt, Invalid."""
    with decompressed(_File(fd), bounds) as plain:
        reader = tar.Reader(plain)
        unpacker = _Unpacker(target, owner)
        for count, entry in enumerate(reader):
            if count >= member.MAXIMUM_ENTRIES:
                raise Corrupt(f"the archive has more than '{member.MAXIMUM_ENTRIES}' entries")
            target.check()
            unpacker.add(entry, reader.chunks())
        unpacker.finish()


class _Unpacker:
    def __init__(self, target: Target, owner: tuple[int, int] | None) -> None:
        self._target = target
        self._owner = owner
        self._times: dict[bytes, int] = {}
        self._holes = member.Holes("archive")
        self._makers: dict[str, Callable[[Entry, bytes], None]] = {
            tar.DIRECTORY: self._directory, tar.SYMLINK: self._symlink,
            tar.HARDLINK: self._hardlink, tar.FIFO: self._node,
            tar.CHARACTER: self._node, tar.BLOCKDEV: self._node,
        }  # fmt: skip

    def add(self, entry: Entry, data: Iterator[memoryview]) -> None:
        path = member.path(entry.name, "archive")
        member.check_owner(entry)
        with _reporting(path):
            self._add(entry, path, data)

    def _add(self, entry: Entry, path: bytes, data: Iterator[memoryview]) -> None:
        if not path:
            if entry.kind == tar.DIRECTORY:
                self._own(self._target.opened(b""), entry)
                self._times[b""] = entry.mtime_ns
            return
        parent = os.fsencode(self._target.real(os.fsdecode(posixpath.dirname(path))))
        self._target.make_directories(os.fsdecode(parent), places.Manner(owner=self._owner))
        place = posixpath.join(parent, posixpath.basename(path))
        there = self._target.status(place)
        both = entry.kind == tar.DIRECTORY and there is not None and stat.S_ISDIR(there.st_mode)
        if there is not None and not both:
            self._target.remove(place)
        if entry.kind == tar.FILE:
            self._file(entry, place, data)
        else:
            self._makers[entry.kind](entry, place)

    def _file(self, entry: Entry, place: bytes, data: Iterator[memoryview]) -> None:
        fd = self._target.new_file(place)
        try:
            if entry.segments is None:
                for chunk in data:
                    write_all(fd, chunk)
                    self._target.check()
            else:
                self._holes.write(fd, entry, data)
            self._own(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _own(self, fd: int, entry: Entry) -> None:
        os.fchown(fd, *self._ids(entry))
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs.items():
            places.set_xattr(fd, name, value)

    def _ids(self, entry: Entry) -> tuple[int, int]:
        return self._owner or (entry.uid, entry.gid)

    def _directory(self, entry: Entry, place: bytes) -> None:
        self._target.directory(place)
        self._own(self._target.opened(place), entry)
        self._times[place] = entry.mtime_ns

    def _symlink(self, entry: Entry, place: bytes) -> None:
        self._target.symlink(place, entry.link)
        self._target.own(place, self._ids(entry), None)
        self._target.set_times(place, entry.mtime_ns)

    def _hardlink(self, entry: Entry, place: bytes) -> None:
        link = member.path(entry.link, "archive")
        if not link:
            raise Corrupt(f"'{member.show(place)}' is a hard link to the root")
        parent = os.fsencode(self._target.real(os.fsdecode(posixpath.dirname(link))))
        self._target.link(posixpath.join(parent, posixpath.basename(link)), place)

    def _node(self, entry: Entry, place: bytes) -> None:
        device = member.device(entry) if entry.kind != tar.FIFO else 0
        self._target.node(place, _KINDS[entry.kind] | entry.mode, device)
        self._target.own(place, self._ids(entry), entry.mode)
        self._target.set_times(place, entry.mtime_ns)

    def finish(self) -> None:
        """Directories' times, now that nothing is made in them any more."""
        for place, mtime_ns in self._times.items():
            status = self._target.status(place)
            if status is not None and stat.S_ISDIR(status.st_mode):
                self._target.set_times(place, mtime_ns)


@contextmanager
def _reporting(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.errno in places.MALFORMED:
            raise Corrupt(f"cannot unpack '{member.show(path)}': {error.strerror}") from error
        raise
    except Invalid as error:
        raise Corrupt(f"cannot unpack '{member.show(path)}': {error.message}") from error
