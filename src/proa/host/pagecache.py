"""How much of a file is in the page cache, and dropping it from there: of these files alone."""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

SYS_CACHESTAT = 451  # the same number on all architectures
PAGE = mmap.PAGESIZE
RESIDENT = 1  # of a byte of mincore(2)'s vector


class _Range(ctypes.Structure):
    _fields_ = [("start", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Cachestat(ctypes.Structure):
    """`struct cachestat` of linux/mman.h: numbers of pages."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")
    ]


@dataclass(frozen=True)
class Dropped:
    """Bytes in the page cache before and after."""

    before: int
    after: int


def drop(descriptor: int) -> Dropped:
    """Drop a file from the page cache; pages that are mapped somewhere stay."""
    before = resident(descriptor)
    if not before:
        return Dropped(0, 0)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    after = resident(descriptor)
    if after:  # perhaps it was written lately: only what is on the disk can go
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        after = resident(descriptor)
    return Dropped(before, after)


def resident(descriptor: int) -> int:
    """Bytes of a regular file in the page cache."""
    return _way()(descriptor)


@functools.cache
def _way() -> Callable[[int], int]:
    """cachestat(2), which Linux has since 6.5, else mincore(2)."""
    descriptor = os.memfd_create("asked", os.MFD_CLOEXEC)
    try:
        by_cachestat(descriptor)
        return by_cachestat
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            raise
        return by_mincore
    finally:
        os.close(descriptor)


def by_cachestat(descriptor: int) -> int:
    """As the kernel's own count has it."""
    found, everything = _Cachestat(), _Range(0, 0)
    if _libc().syscall(SYS_CACHESTAT, descriptor, ctypes.byref(everything), ctypes.byref(found), 0):
        raise _failure("cachestat")
    return int(found.cache) * PAGE


def by_mincore(descriptor: int) -> int:
    """As its mapping would find it."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return 0
    libc = _libc()
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        raise _failure("mmap")
    try:
        vector = (ctypes.c_ubyte * -(-size // PAGE))()
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector):
            raise _failure("mincore")
        return sum(entry & RESIDENT for entry in vector) * PAGE
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    return libc


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
