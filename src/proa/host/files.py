"""Files of the host: written whole or not at all, locked, opened below a root, removed safely."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from proa.errors import HostError, NoSpace, Timeout
from proa.host import kernel

_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x01, 0x02, 0x10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRASH = ".trash-"
_TRIES = 1000


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Replace a file's content in one step; `durable` also survives a power cut."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(fd)
        temporary.replace(path)
        if durable:
            _sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"cannot write '{path}': {error.strerror}") from error
        raise HostError(f"cannot write '{path}': {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_all(path: Path) -> None:
    """Bring all of the file system that `path` is on to its disk; returns when it is there."""
    fd = os.open(path, _DIRECTORY)
    try:
        kernel.checked(kernel.libc().syncfs(fd))
    finally:
        os.close(fd)


class Lock:
    """An exclusive lock on a file, kept by the kernel, gone with the process that holds it.

    Excludes threads too when each uses a `Lock` of its own.
    """

    def __init__(self, path: Path, *, timeout_seconds: float | None = None) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock, waiting for it.  Raises Timeout when it takes too long."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _wait(self, fd: int) -> None:
        if self._timeout_seconds is None:
            fcntl.flock(fd, fcntl.LOCK_EX)
            return
        end = time.monotonic() + self._timeout_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Timeout(f"'{self._path}' is locked by another process") from None
                time.sleep(0.005)

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.release()


# -- below a root that somebody else filled -------------------------------------------------------


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as if `root_fd` were the root: no symlink and no `..` leads out of it."""
    how = _How(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0)
    how.resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
    return _openat2(root_fd, path, how)


def _openat2(directory_fd: int, path: str, how: _How) -> int:
    name, size = os.fsencode(path), ctypes.sizeof(how)
    for _ in range(_TRIES):
        with suppress(BlockingIOError):  # a rename anywhere while it went through `..`
            return kernel.syscall(kernel.OPENAT2, directory_fd, name, ctypes.byref(how), size)
    return kernel.syscall(kernel.OPENAT2, directory_fd, name, ctypes.byref(how), size)


# -- removal --------------------------------------------------------------------------------------


def remove_tree(path: Path) -> None:
    """Remove a file or directory tree; a missing one is fine.

    It is renamed first, so that nobody finds half of it.  Links are removed, never followed; a
    mount below it is an error, never entered; depth and modes do not matter.
    """
    trash = path.with_name(f"{_TRASH}{secrets.token_hex(8)}")
    try:
        path.rename(trash)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"cannot remove '{path}': {error.strerror}") from error
    _empty(trash)


def empty_trash(directory: Path) -> None:
    """Finish removals that a crash interrupted in `directory`."""
    with suppress(FileNotFoundError):
        for entry in list(directory.iterdir()):
            if entry.name.startswith(_TRASH):
                _empty(entry)


def _empty(trash: Path) -> None:
    try:
        if not stat.S_ISDIR(trash.lstat().st_mode):
            trash.unlink()
            return
        fd = os.open(trash, _DIRECTORY)
        try:
            _Removal(fd).run()
        finally:
            os.close(fd)
        trash.rmdir()
    except OSError as error:
        raise HostError(f"cannot remove '{trash}': {error.strerror}") from error


class _Removal:
    """Empties one directory.

    A sub-directory is moved up to the top before it is emptied: no recursion, one path component,
    two descriptors, whatever the depth.
    """

    def __init__(self, top_fd: int) -> None:
        self._top = top_fd
        self._count = 0

    def run(self) -> None:
        """Empty it."""
        while directories := self._unlink_files(self._top):
            for name in directories:
                self._clear(name)
                os.rmdir(name, dir_fd=self._top)

    def _clear(self, name: str) -> None:
        """Unlink the files of a directory of the top and move its directories to the top."""
        fd = _openat2(self._top, name, _How(_DIRECTORY, 0, _RESOLVE_NO_XDEV))
        try:
            for child in self._unlink_files(fd):
                self._count += 1
                moved = f"{_TRASH}{self._count:x}-{secrets.token_hex(4)}"
                os.rename(child, moved, src_dir_fd=fd, dst_dir_fd=self._top)
        finally:
            os.close(fd)

    def _unlink_files(self, fd: int) -> list[str]:
        """Unlink what is no directory in `fd`; the names of the directories."""
        directories: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.name)
                else:
                    with suppress(FileNotFoundError):  # its owner, ending, removes it, too
                        os.unlink(entry.name, dir_fd=fd)
        return directories
