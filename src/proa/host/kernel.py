"""Raw system calls that Python's standard library does not wrap.

The numbers of these calls are the same on every architecture Linux gained after 2011 and on
x86_64, because they were all added after the tables were unified (number 424 and up).
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any

OPEN_TREE = 428
MOVE_MOUNT = 429
FSOPEN = 430
FSCONFIG = 431
FSMOUNT = 432
OPENAT2 = 437
MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET = 444

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000


@cache
def libc() -> ctypes.CDLL:
    """The C library of this process; its calls release the interpreter lock."""
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def checked(result: int) -> int:
    """The result of a C call, or the OSError its -1 stands for."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: Any) -> int:
    """Make one system call: ints go as longs, bytes as C strings, ctypes buffers as pointers."""
    converted = [
        ctypes.c_long(item) if isinstance(item, int) else item for item in (number, *arguments)
    ]
    while True:
        try:
            return checked(libc().syscall(*converted))
        except InterruptedError:
            continue


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    checked(libc().unshare(flags))


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """mount(2); empty strings are passed as null pointers."""
    texts = [text.encode() or None for text in (source, target, kind, data)]
    checked(libc().mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]))


def umount(target: str, *, lazy: bool = False) -> None:
    """umount2(2), not following a symbolic link; `lazy` detaches what is still busy."""
    mnt_detach, umount_nofollow = 2, 8
    checked(libc().umount2(os.fsencode(target), umount_nofollow | (mnt_detach if lazy else 0)))


def version() -> tuple[int, int]:
    """Major and minor version of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor.split("-")[0])) or 0)


def is_missing(error: OSError) -> bool:
    """Whether the kernel does not know the call or option at all."""
    return error.errno in (errno.ENOSYS, errno.EOPNOTSUPP)
