"""Writable disks: sparse raw files with an empty ext4 on them, made by writing a few extents.

Formatting runs once; each new disk then takes a few writes of the blocks that are not zero.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt, HostError, NoSpace

DEFAULT_BYTES = 16 << 30
BLOCK = 4096
NUMBER, PAIR = struct.Struct("<Q"), struct.Struct("<QQ")
ZERO = bytes(BLOCK)
FORMAT = (
    "mkfs.ext4",
    "-q",
    "-F",
    "-m",
    "0",
    "-b",
    str(BLOCK),
    "-I",
    "256",
    "-J",
    "size=8",
    "-O",
    "^resize_inode,^metadata_csum",
    "-E",
    "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
)


@dataclass(frozen=True)
class Seed:
    """The blocks of a formatted disk that are not zero."""

    size_bytes: int
    extents: tuple[tuple[int, bytes], ...]

    def create(self, path: Path) -> int:
        """A new disk at `path`, opened for reading and writing; nothing is left when it fails."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _disk_error(path, error) from error
        try:
            os.ftruncate(descriptor, self.size_bytes)
            for offset, data in self.extents:
                os.pwrite(descriptor, data, offset)
        except OSError as error:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise _disk_error(path, error) from error
        return descriptor

    def dump(self) -> bytes:
        """As one compact file: the size, then offset, length and content of each extent."""
        parts = [NUMBER.pack(self.size_bytes)]
        for offset, data in self.extents:
            parts += [NUMBER.pack(offset), NUMBER.pack(len(data)), data]
        return b"".join(parts)

    @classmethod
    def parse(cls, data: bytes) -> Seed:
        """What `dump` made.  Raises Corrupt."""
        found: list[tuple[int, bytes]] = []
        try:
            (size,), position = NUMBER.unpack_from(data), NUMBER.size
            while position < len(data):
                offset, length = PAIR.unpack_from(data, position)
                position += PAIR.size + length
                found.append((offset, data[position - length : position]))
        except struct.error as error:
            raise Corrupt("the seed of a disk is cut off") from error
        return cls(size, tuple(found))


def _disk_error(path: Path, error: OSError) -> HostError | NoSpace:
    message = f"cannot make the disk '{path}': {error.strerror}"
    return NoSpace(message) if error.errno in (errno.ENOSPC, errno.EDQUOT) else HostError(message)


def format_seed(directory: Path, size_bytes: int = DEFAULT_BYTES) -> Seed:
    """Format one disk in `directory`, with an overlay's two directories, and keep its blocks."""
    with tempfile.TemporaryDirectory(prefix=".format-", dir=directory) as scratch:
        tree, disk = Path(scratch) / "tree", Path(scratch) / "disk"
        for name in ("upper", "work"):
            (tree / name).mkdir(parents=True, mode=0o755)
        tree.chmod(0o755)
        with disk.open("wb") as file:
            file.truncate(size_bytes)
        program = shutil.which(FORMAT[0], path="/usr/sbin:/sbin:/usr/bin") or FORMAT[0]
        command = (program, *FORMAT[1:], "-d", str(tree), str(disk))
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise HostError(
                f"cannot run '{program}': {error.strerror}", hint="install 'e2fsprogs'"
            ) from error
        if done.returncode != 0:
            raise HostError(
                f"'{' '.join(command)}' failed with {done.returncode}: {done.stderr.strip()}"
            )
        return Seed(size_bytes, tuple(extents(disk)))


def extents(path: Path) -> list[tuple[int, bytes]]:
    """Runs of blocks with something in them."""
    result: list[tuple[int, bytes]] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in data_ranges(descriptor):
            for offset in range(start - start % BLOCK, end, BLOCK):
                _append(result, offset, os.pread(descriptor, BLOCK, offset))
    finally:
        os.close(descriptor)
    return result


def _append(result: list[tuple[int, bytes]], offset: int, block: bytes) -> None:
    if block == ZERO[: len(block)]:
        return
    if result and result[-1][0] + len(result[-1][1]) == offset:
        start, data = result.pop()
        result.append((start, data + block))
    else:
        result.append((offset, block))


def data_ranges(descriptor: int) -> list[tuple[int, int]]:
    """Parts of a sparse file that are not holes."""
    size = os.fstat(descriptor).st_size
    result: list[tuple[int, int]] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        result.append((start, position))
    return result
