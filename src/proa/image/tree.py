"""Work inside a directory that somebody hostile filled: by descriptors, never leaving it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proa.errors import HostError, NoSpace
from proa.host import kernel

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT, _RESOLVE_NO_XDEV = 0x02, 0x10, 0x01


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_INSIDE = _How(
    os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
    0,
    _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV,
)


def open_directory(root_fd: int, path: bytes) -> int:
    """The directory `path` with `root_fd` as the root of everything, symlinks included."""
    size = ctypes.sizeof(_INSIDE)
    return kernel.syscall(kernel.OPENAT2, root_fd, path or b".", ctypes.byref(_INSIDE), size)


def remove(path: Path) -> None:
    """Remove a file or a tree of any depth; nothing there is fine.

    Sub-directories are moved up to the top before they are emptied, so neither deep nesting nor
    long paths matter, and one descriptor is enough.
    """
    try:
        path.unlink(missing_ok=True)
        return
    except IsADirectoryError:
        pass
    top = os.open(path, DIRECTORY)
    try:
        _empty(top)
    finally:
        os.close(top)
    path.rmdir()


def _empty(top: int) -> None:
    moved = 0
    pending = [".."]  # a name no entry has: the top itself
    while pending:
        name = pending.pop()
        here = top if name == ".." else os.open(name, DIRECTORY, dir_fd=top)
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.name, dir_fd=here)
                    elif here == top:
                        pending.append(entry.name)
                    else:
                        moved += 1
                        os.rename(
                            entry.name, f".moved-{moved}", src_dir_fd=here, dst_dir_fd=top
                        )  # fmt: skip
                        pending.append(f".moved-{moved}")
        finally:
            if here != top:
                os.close(here)
        if name != "..":
            os.rmdir(name, dir_fd=top)


@contextmanager
def reporting(action: str) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"cannot {action}: no space left on the disk") from error
        raise HostError(f"cannot {action}: {error}") from error
