"""Names of users and groups, looked up in an image's own files.

The files are the image's: only regular ones are read, only so much of them, and never through a
link that leaves the image (CVE-2024-9676: a fifo, a device, a file without end).
"""

from __future__ import annotations

import os
import stat

from proa.errors import Invalid
from proa.host import files

MAXIMUM_BYTES = 10 << 20  # of a passwd or group file, as BuildKit has it
MAXIMUM_ID = (1 << 32) - 2
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


def owner(text: str, root_fd: int) -> tuple[int, int]:
    """The ids of `user[:group]`; a number needs no file, and is its own group.

    `root_fd` is the image's root.  Raises Invalid.
    """
    user, colon, group = text.partition(":")
    uid, gid = _user(user, root_fd)
    if colon and group:
        gid = _group(group, root_fd)
    return uid, gid


def _user(text: str, root_fd: int) -> tuple[int, int]:
    if text.isdecimal():
        return (number := _number(text)), number
    for fields in _lines(root_fd, "etc/passwd", text):
        if fields[0] == text and len(fields) > 3:
            return _number(fields[2]), _number(fields[3])
    raise _unknown("user", text)


def _group(text: str, root_fd: int) -> int:
    if text.isdecimal():
        return _number(text)
    for fields in _lines(root_fd, "etc/group", text):
        if fields[0] == text and len(fields) > 2:
            return _number(fields[2])
    raise _unknown("group", text)


def _unknown(what: str, name: str) -> Invalid:
    return Invalid(f"unknown {what} '{name}'", hint=f"the image has no such {what}; use a number")


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or int(text) > MAXIMUM_ID:
        raise Invalid(f"impossible id '{text[:40]}'")
    return int(text)


def _lines(root_fd: int, path: str, wanted: str) -> list[list[str]]:
    try:
        fd = files.open_in_root(root_fd, path, _FLAGS)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Invalid(f"the image's '/{path}' is no regular file")
        data = b""
        while len(data) <= MAXIMUM_BYTES and (part := os.read(fd, 1 << 16)):
            data += part
    finally:
        os.close(fd)
    if len(data) > MAXIMUM_BYTES:
        raise Invalid(f"the image's '/{path}' is larger than '{MAXIMUM_BYTES}' bytes")
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    return [line.split(":") for line in lines if line.startswith(f"{wanted}:")]
