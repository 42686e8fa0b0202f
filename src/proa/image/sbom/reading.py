"""An image's merged file system read by somebody who does not trust it.

Only regular files are opened, nothing leads out of the root, and there is a limit to everything.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt
from proa.host import files
from proa.image.layer import tree

MAXIMUM_ENTRIES = 4_000_000
MAXIMUM_DEPTH = 128
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True)
class Found:
    """A regular file; `parent` is its directory's descriptor, good until the next is found."""

    path: bytes
    size: int
    mode: int
    parent: int

    def read(self, limit: int) -> bytes:
        """Its first `limit` bytes; none when it cannot be read."""
        name = self.path.rpartition(b"/")[2]
        try:
            fd = os.open(name, _FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.parent)
        except OSError:
            return b""
        return _content(fd, limit)

    def open(self) -> int:
        """A descriptor of it, to be closed by the caller."""
        name = self.path.rpartition(b"/")[2]
        return os.open(name, _FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.parent)


def read(root: int, path: str, limit: int) -> bytes | None:
    """A file's content, links followed below the root; None when it is not there.

    Raises Corrupt when it is larger than `limit` bytes.
    """
    try:
        fd = files.open_in_root(root, path, _FLAGS)
    except OSError:
        return None
    data = _content(fd, limit + 1)
    if len(data) > limit:
        raise Corrupt(f"'/{path}' is larger than '{limit}' bytes")
    return data


def copy(root: int, path: str, target: Path, limit: int) -> None:
    """Copy a regular file to the new file `target`, of anything else nothing.

    Raises Corrupt when it is larger than `limit` bytes.
    """
    with target.open("xb") as file:
        try:
            fd = files.open_in_root(root, path, _FLAGS)
        except OSError:
            return
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return
        with open(fd, "rb") as source:
            if status.st_size > limit:
                raise Corrupt(f"'/{path}' is larger than '{limit}' bytes")
            shutil.copyfileobj(source, file)


def names(root: int, path: str, limit: int = 100_000) -> list[str]:
    """The names in a directory, sorted; none when it is not there."""
    try:
        fd = tree.open_directory(root, os.fsencode(path))
    except OSError:
        return []
    try:
        found: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) > limit:
                    raise Corrupt(f"'/{path}' has more than '{limit}' entries")
        return sorted(found)
    finally:
        os.close(fd)


def walk(root: int, skipped: frozenset[bytes]) -> Iterator[Found]:
    """Every regular file below the root, in no order; these directories are not entered."""
    waiting, count = [b""], 0
    while waiting:
        path = waiting.pop()
        try:
            fd = tree.open_directory(root, path)
        except OSError:
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    count += 1
                    if count > MAXIMUM_ENTRIES:
                        raise Corrupt(f"the image has more than '{MAXIMUM_ENTRIES}' files")
                    name = os.fsencode(entry.name)
                    below = path + b"/" + name if path else name
                    if entry.is_dir(follow_symlinks=False):
                        if below not in skipped and below.count(b"/") < MAXIMUM_DEPTH:
                            waiting.append(below)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        yield Found(below, status.st_size, status.st_mode, fd)
        finally:
            os.close(fd)


def _content(fd: int, limit: int) -> bytes:
    """The first `limit` bytes of a regular file, which is closed; none of anything else."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return b""
    with open(fd, "rb") as file:
        return file.read(limit)
