"""Disks on their way between a client's files and the engine: only the parts that hold data.

A disk travels as a line of JSON, `{"size": bytes, "parts": [[offset, length], ...]}`, and then the
bytes of these parts, one after the other.  The client opens and writes its own files.
"""

from __future__ import annotations

import errno
import os

from proa.client import fastjson, partial
from proa.client.progress import failure
from proa.errors import EngineUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from proa.client.connection import Answer, Upload

_PIECE_BYTES = 1 << 20


def parts_of(fd: int) -> list[list[int]]:
    """Offset and length of what is no hole; the whole of a file that cannot tell."""
    size = os.lseek(fd, 0, os.SEEK_END)
    found: list[list[int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return [[0, size]]
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append([start, at - start])
    return found


def send(path: str, to: Upload) -> None:
    """Send a file or a block device."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = parts_of(fd)
        head = {"size": os.lseek(fd, 0, os.SEEK_END), "parts": parts}
        to.write(fastjson.dumps(head).encode() + b"\n")
        for start, length in parts:
            while length > 0 and (data := os.pread(fd, min(length, _PIECE_BYTES), start)):
                to.write(data)
                start, length = start + len(data), length - len(data)
    finally:
        os.close(fd)


def receive(answer: Answer, path: str, told: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Write what the engine sends to `path`, complete or not at all; the disk's own line.

    `told` gets every line before it.  Raises what the engine says went wrong.
    """
    pieces = Pieces(answer.parts())
    while True:
        head: dict[str, Any] = fastjson.loads(pieces.line())
        if "parts" in head:
            break
        if head.get("error"):
            raise failure(head)
        told(head)
    with partial.written(path) as file:
        file.truncate(head["size"])
        for start, length in head["parts"]:
            file.seek(start)
            for data in pieces.exactly(length):
                file.write(data)
    return head


class Pieces:
    """Lines and counted bytes out of a stream."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def line(self) -> bytes:
        """Up to the next newline."""
        gathered = [self._rest]
        while b"\n" not in gathered[-1]:
            gathered.append(self._more())
        line, _, self._rest = b"".join(gathered).partition(b"\n")
        return line

    def exactly(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes."""
        while count > 0:
            data = self._rest or self._more()
            data, self._rest = data[:count], data[count:]
            count -= len(data)
            yield data

    def _more(self) -> bytes:
        for data in self._parts:
            if data:
                return data
        raise EngineUnavailable("the engine stopped in the middle of the disk")
