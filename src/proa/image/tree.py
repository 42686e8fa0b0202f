"""Work inside a directory that somebody hostile filled, and errors that say what was being done."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from proa.errors import HostError, NoSpace
from proa.host import files

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(root_fd: int, path: bytes) -> int:
    """The directory `path` with `root_fd` as the root of everything, symlinks included."""
    return files.open_in_root(root_fd, os.fsdecode(path) or ".", os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def reporting(action: str) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"cannot {action}: no space left on the disk") from error
        raise HostError(f"cannot {action}: {error}") from error
