"""Read an instance's log: records written by its monitor (docs/protocol.md), cut into lines.

Following waits for inotify events on the log, with a tick so that a reader can be abandoned.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.engine.options import LogOptions
from proa.errors import HostError

HEADER = struct.Struct("<QIB3x")
RECORD_MAXIMUM = 1 << 20
TICK_SECONDS = 5.0
IN_MODIFY, IN_ATTRIB = 0x2, 0x4
Entry = tuple[int, int, bytes]  # time in ns, stream, one line with its end (the last may lack it)


def read_log(
    core: Core, instance: Instance, options: LogOptions
) -> Iterator[tuple[int, bytes] | None]:
    """(stream, bytes) per line as the options want them; None before each wait while following.

    The log may be larger than memory: it is never held as a whole.
    """
    path = core.directory(instance.id) / "log"
    if not path.exists() and not options.follow:
        return
    path.touch()
    with open(path, "rb", buffering=1 << 16) as file, _Watch(path) as watch:
        lines = _Lines()
        whole = not options.follow or not instance.live
        end = os.fstat(file.fileno()).st_size  # one that writes all the time must not hold us
        past = _entries(_records(file, end), lines, options, whole=whole)
        for entry in _tail(past, options.tail):
            yield entry[1], _render(entry, options)
        while options.follow:
            over = not instance.live
            for entry in _entries(_records(file), lines, options, whole=over):
                yield entry[1], _render(entry, options)
            if over or _past(options):
                return
            yield None
            watch.wait(TICK_SECONDS)


def _entries(
    records: Iterator[Entry], lines: _Lines, options: LogOptions, *, whole: bool
) -> Iterator[Entry]:
    """The wanted lines of records; `whole` when an unfinished last line will stay so."""
    for record in records:
        for entry in lines.feed(record):
            if _wanted(entry, options):
                yield entry
    if whole:
        yield from (entry for entry in lines.rest() if _wanted(entry, options))


def _wanted(entry: Entry, options: LogOptions) -> bool:
    seconds = entry[0] / 1e9
    if (options.since and seconds < options.since) or (options.until and seconds > options.until):
        return False
    return options.stdout if entry[1] == 1 else options.stderr


def _past(options: LogOptions) -> bool:
    return bool(options.until) and datetime.now(UTC).timestamp() > options.until


def _tail(entries: Iterator[Entry], count: int | None) -> Iterable[Entry]:
    return entries if count is None else deque(entries, maxlen=max(0, min(count, sys.maxsize)))


def _render(entry: Entry, options: LogOptions) -> bytes:
    if not options.timestamps:
        return entry[2]
    seconds, nanoseconds = divmod(entry[0], 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{nanoseconds:09}Z ".encode() + entry[2]


def _records(file: BinaryIO, end: int = sys.maxsize) -> Iterator[Entry]:
    """Whole records from where the file stands; a half-written last one is left for later."""
    while (start := file.tell()) < end:
        header = file.read(HEADER.size)
        if len(header) == HEADER.size:
            moment, length, stream = HEADER.unpack(header)
            if length <= RECORD_MAXIMUM:
                data = file.read(length)
                if len(data) == length:
                    yield moment, stream, data
                    continue
        file.seek(start)
        return


class _Lines:
    """Cuts each stream's bytes into lines; a line has the time of its first byte."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, bytes]] = {}

    def feed(self, record: Entry) -> list[Entry]:
        moment, stream, data = record
        first, begun = self._open.pop(stream, (moment, b""))
        lines = list(_split(begun + data))
        if lines and not lines[-1].endswith(b"\n"):
            self._open[stream] = (first if len(lines) == 1 else moment, lines.pop())
        return [(first if n == 0 else moment, stream, line) for n, line in enumerate(lines)]

    def rest(self) -> list[Entry]:
        """Unfinished lines, at the end."""
        left = [(moment, stream, data) for stream, (moment, data) in self._open.items()]
        self._open.clear()
        return left


def _split(data: bytes) -> Iterator[bytes]:
    *whole, last = data.split(b"\n")
    yield from (line + b"\n" for line in whole)
    if last:
        yield last


class _Watch:
    """inotify(7) on one file: modification, or a touch when the instance has ended."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = ctypes.c_uint32(IN_MODIFY | IN_ATTRIB)
        if (
            self._descriptor < 0
            or libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask) < 0
        ):
            raise HostError(f"cannot watch '{path}': {os.strerror(ctypes.get_errno())}")

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def wait(self, timeout_seconds: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], timeout_seconds)
        if ready:
            os.read(self._descriptor, 4096)
        return bool(ready)
