"""Doing file-system work under other ids without giving up capabilities, in one thread only."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from proa.host import kernel

_CAPABILITY_VERSION = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Set(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Make the calling thread's file-system ids these, all its capabilities kept.

    Leaving it, the thread's own ids are back.
    """
    if (uid, gid) == (os.geteuid(), os.getegid()):
        yield
        return
    libc = kernel.libc()
    old_gid = libc.setfsgid(gid)
    old_uid = libc.setfsuid(uid)
    try:
        _raise_capabilities()  # setfsuid took those over files away
        yield
    finally:
        libc.setfsuid(old_uid)  # and this gives them back
        libc.setfsgid(old_gid)


def _raise_capabilities() -> None:
    """Make every permitted capability effective again."""
    header, sets = _Header(_CAPABILITY_VERSION, 0), (_Set * 2)()
    kernel.checked(kernel.libc().capget(ctypes.byref(header), sets))
    for part in sets:
        part.effective = part.permitted
    kernel.checked(kernel.libc().capset(ctypes.byref(header), sets))
