"""HTTP/1.1 requests off the wire: heads parsed strictly, bodies read as files.

A `Wire` never takes a byte beyond the message at hand (it peeks, then takes), so a socket handed
over after an upgrade is clean: whatever the client sends next is still in the kernel.
"""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proa.errors import Invalid

PEEK_BYTES = 16 << 10
CHUNK_LINE_BYTES = 256
TRAILER_BYTES = 8 << 10

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])\r\n")
_OTHER_VERSION = re.compile(rb"[A-Z]{1,16} [\x21-\x7e]+ HTTP/(?!1\.[01]\r)[\d.]{1,8}\r\n")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_ONCE = frozenset({"host", "content-length", "transfer-encoding", "content-type"})


class Malformed(Invalid):
    """The message is not HTTP as we accept it; the connection ends after the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.http_status = status


class Disconnected(Exception):
    """The client went away; nobody is there to be told."""


@dataclass(frozen=True)
class Bounds:
    """What one client may cost."""

    head_bytes: int = 64 << 10
    fields: int = 100
    head_seconds: float = 30.0
    stall_seconds: float = 15.0  # silence within a head or a small body
    idle_seconds: float = 600.0  # silence between two requests
    upload_stall_seconds: float = 3600.0  # silence within an upload (a pipe may feed it)
    body_bytes: int = 4 << 20
    connections: int = 4096


class Wire:
    """The reading side of a blocking socket that has a receive timeout of `stall_seconds`."""

    def __init__(self, sock: socket.socket, bounds: Bounds) -> None:
        self._socket = sock
        self._bounds = bounds

    def wait(self) -> bool:
        """Wait for the first byte of a request; False when none comes."""
        deadline = time.monotonic() + self._bounds.idle_seconds
        while time.monotonic() < deadline:
            try:
                return bool(self._socket.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                continue
            except OSError:
                return False
        return False

    def until(self, end: bytes, limit: int, status: int = 431) -> bytes:
        """Take all bytes up to and including `end`; more than `limit` is refused."""
        deadline = time.monotonic() + self._bounds.head_seconds
        taken = bytearray()
        while True:
            before = len(taken)
            taken += self._receive(min(PEEK_BYTES, limit), socket.MSG_PEEK)
            at = taken.find(end, max(0, before - len(end) + 1))
            stop = at + len(end) if at >= 0 else len(taken)
            self._take(stop - before)
            if stop > limit:
                raise Malformed(f"more than '{limit}' bytes where a line or a head ends", status)
            if at >= 0:
                return bytes(taken[:stop])
            if time.monotonic() > deadline:
                raise Malformed("the request takes too long", 408)

    def into(self, view: memoryview, patience_seconds: float) -> int:
        """Receive at least one byte into `view`."""
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                count = self._socket.recv_into(view)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    continue
                raise Malformed("the request takes too long", 408) from None
            except OSError as error:
                raise Disconnected from error
            if count == 0:
                raise Disconnected
            return count

    def _take(self, count: int) -> None:
        while count > 0:
            count -= len(self._receive(count, 0))

    def _receive(self, count: int, flags: int) -> bytes:
        try:
            data = self._socket.recv(count, flags)
        except BlockingIOError:
            raise Malformed("the request takes too long", 408) from None
        except OSError as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        return data


@dataclass(frozen=True)
class Head:
    """Request line and fields; names are lower case."""

    method: str
    target: str
    minor: int
    fields: dict[str, str]

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to send another request."""
        connection = self.fields.get("connection", "").lower()
        return "close" not in connection and (self.minor == 1 or "keep-alive" in connection)


def read_head(wire: Wire, bounds: Bounds) -> Head:
    """Read and check one request's head."""
    raw = wire.until(b"\r\n\r\n", bounds.head_bytes)
    line = _REQUEST_LINE.match(raw)
    if line is None:
        if _OTHER_VERSION.match(raw):
            raise Malformed("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
        raise Malformed("malformed request line")
    if not _FIELDS.fullmatch(raw, line.end()):
        raise Malformed("malformed header field")
    fields = _fields(raw[line.end() : -4].decode("latin-1"), bounds.fields)
    minor = int(line[3])
    if minor == 1 and "host" not in fields:
        raise Malformed("missing 'Host' header")
    return Head(line[1].decode(), line[2].decode(), minor, fields)


def _fields(text: str, maximum: int) -> dict[str, str]:
    fields: dict[str, str] = {}
    lines = text.split("\r\n") if text else []
    if len(lines) > maximum:
        raise Malformed(f"more than '{maximum}' header fields", 431)
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name not in fields:
            fields[name] = value
        elif name in _ONCE:
            raise Malformed(f"header '{name}' given twice")
        else:
            fields[name] += ", " + value
    return fields


class Body(io.RawIOBase):
    """A request's body as a readable file; ends where the message ends."""

    def __init__(self, wire: Wire, left: int, *, chunked: bool, patience_seconds: float) -> None:
        self._wire = wire
        self._left = left
        self._chunked = chunked
        self._first = True
        self.patience_seconds = patience_seconds
        self.invitation = b""  # "100 Continue", sent when somebody wants the body
        self.send: Callable[[bytes], None] = lambda data: None

    @property
    def finished(self) -> bool:
        """Whether every byte of the body was taken from the wire."""
        return self._left == 0 and not self._chunked

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what is there; 0 at the end."""
        if self.invitation:
            invitation, self.invitation = self.invitation, b""
            self.send(invitation)
        if self._left == 0 and self._chunked:
            self._next_chunk()
        if self._left == 0:
            return 0
        view = memoryview(buffer)[: self._left]
        count = self._wire.into(view, self.patience_seconds)
        self._left -= count
        return count

    def all(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes."""
        parts: list[bytes] = []
        total = 0
        if not self._chunked and self._left > limit:
            raise Malformed(f"body larger than '{limit}' bytes", 413)
        while part := self.read(64 << 10):
            total += len(part)
            if total > limit:
                raise Malformed(f"body larger than '{limit}' bytes", 413)
            parts.append(part)
        return b"".join(parts)

    def _next_chunk(self) -> None:
        if not self._first and self._wire.until(b"\n", 2, 400) != b"\r\n":
            raise Malformed("malformed chunk")
        self._first = False
        size = _CHUNK_SIZE.fullmatch(self._wire.until(b"\n", CHUNK_LINE_BYTES, 400))
        if size is None:
            raise Malformed("malformed chunk size")
        self._left = int(size[1], 16)
        if self._left == 0:
            self._skip_trailer()
            self._chunked = False

    def _skip_trailer(self) -> None:
        left = TRAILER_BYTES
        while (line := self._wire.until(b"\n", left, 400)) != b"\r\n":
            left -= len(line)


def body_of(head: Head, wire: Wire, bounds: Bounds) -> Body:
    """The body a head announces; refuses whatever two readers could understand differently."""
    length = head.fields.get("content-length")
    coding = head.fields.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise Malformed("both 'Content-Length' and 'Transfer-Encoding' given")
        if coding.lower() != "chunked" or head.minor == 0:
            raise Malformed(f"transfer encoding '{coding}' is not known here", 501)
        return Body(wire, 0, chunked=True, patience_seconds=bounds.stall_seconds)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
        raise Malformed(f"malformed content length '{length[:40]}'")
    return Body(wire, int(length or 0), chunked=False, patience_seconds=bounds.stall_seconds)
