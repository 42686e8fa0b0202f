"""Half-downloaded blobs: kept over cuts, kills and restarts, and downloaded by one at a time.

`partial/<hex>` of the store has the first bytes of a blob.  Whoever holds its lock (the kernel's,
gone with its process) goes on with it; who waits finds the blob in the store afterwards.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from proa.image import reference
from proa.image.layer.stream import write_all

_LOOK_SECONDS = 0.05
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Half:
    """The first bytes of a blob in a file: read once from its beginning, then added to."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._left = os.fstat(fd).st_size
        self.resumed = self._left > 0  # whether there was something

    def again(self, size: int) -> bytes:
        """The next bytes that were there already."""
        data = os.read(self._fd, min(size, self._left))
        self._left -= len(data)
        return data

    def add(self, data: bytes) -> None:
        """More bytes, after all that were there have been read."""
        write_all(self._fd, data)

    def empty(self) -> None:
        """Begin anew; nothing when it is half no more, but a blob of the store."""
        if not _is_at(self.path, self._fd):
            return
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._left = 0


@contextmanager
def claimed(folder: Path, digest: str, idle: Callable[[], None]) -> Iterator[Half]:
    """The half of a blob, ours alone; `idle` is called now and then while others have it."""
    path = folder / reference.hexadecimal(digest)
    while True:
        fd = os.open(path, _FLAGS, 0o600)
        try:
            while not _locked(fd):
                idle()
                time.sleep(_LOOK_SECONDS)
            if _is_at(path, fd):
                try:
                    yield Half(path, fd)
                finally:
                    if _is_at(path, fd) and not os.fstat(fd).st_size:
                        path.unlink()
                return
        finally:
            os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, fd: int) -> bool:
    """Not so when whoever had it finished: then the file is in the store, or gone."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
