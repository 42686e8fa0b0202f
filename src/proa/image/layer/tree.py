"""Work inside a directory that somebody hostile filled, and errors that say what was being done."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proa.errors import HostError, NoSpace
from proa.host import files

_KEPT_OPEN = 32
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(root_fd: int, path: bytes) -> int:
    """The directory `path` with `root_fd` as the root of everything, symlinks included."""
    return files.open_in_root(root_fd, os.fsdecode(path) or ".", os.O_RDONLY | os.O_DIRECTORY)


class Directories:
    """The directories below a root by path, the last few kept open: archives come in order.

    A path that was resolved stays right while names are only added; whoever takes a name away
    calls `only`, since that name may have been part of any path.
    """

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def existing(self, path: bytes) -> int:
        """A descriptor of the directory, good until the next few calls."""
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        fd = self._open[path] = open_directory(self._root, path)
        if len(self._open) > _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def made(self, path: bytes) -> int:
        """The same, made with its parents when missing (root's, mode 0755)."""
        try:
            return self.existing(path)
        except FileNotFoundError:
            self._make(path)
            return self.existing(path)

    def _make(self, path: bytes) -> None:
        """Like `mkdir -p`; a step, not a recursion, for every name of a long path."""
        end = 0
        while end < len(path):
            start, end = end, path.find(b"/", end + 1) % (len(path) + 1)
            try:
                self.existing(path[:end])
            except FileNotFoundError:
                name = path[start:end].lstrip(b"/")
                with suppress(FileExistsError):  # a dangling symlink: opening it fails again
                    os.mkdir(name, 0o755, dir_fd=self.existing(path[:start]))
                made = self.existing(path[:end])
                os.fchown(made, 0, 0)
                os.fchmod(made, 0o755)

    def only(self, path: bytes, fd: int) -> int:
        """Forget every directory but this one; gives its descriptor from now on."""
        kept = os.dup(fd)
        self.close()
        self._open[path] = kept
        return kept

    def close(self) -> None:
        """Close every descriptor."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def walk(top: int) -> Iterator[tuple[int, bytes, os.stat_result]]:
    """Everything below a directory, its own directory's descriptor first; the top itself as `.`."""
    yield top, b".", os.stat(top)
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        fd = open_directory(top, path)
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                status = os.lstat(name, dir_fd=fd)
                yield fd, name, status
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path + b"/" + name if path else name)
        finally:
            os.close(fd)


def disk_bytes(directory: Path) -> int:
    """What a directory and all below it take of the disk, as `du` counts: a link once."""
    total, seen = 0, set()
    top = os.open(directory, DIRECTORY)
    try:
        for _, _, status in walk(top):
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            total += status.st_blocks * 512
    finally:
        os.close(top)
    return total


@contextmanager
def reporting(action: str) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"cannot {action}: no space left on the disk") from error
        raise HostError(f"cannot {action}: {error}") from error
