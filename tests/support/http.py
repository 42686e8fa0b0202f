"""HTTP over a Unix socket with the plain standard library: what the tests speak to the engine.

Deliberately not the SDK: it shows the bytes a foreign Docker client would send and see.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

VERSION = "/v1.41"
STREAMS = {1: "stdout", 2: "stderr"}


class ApiError(Exception):
    """The engine refused: its status and its one-line message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: Path, timeout: float = 120) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@dataclass(frozen=True)
class Request:
    """One call; a dict body is sent as JSON, bytes as a tar."""

    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | bytes | None = None

    @property
    def target(self) -> str:
        """Path with version and query; None values are left out, dicts become JSON."""
        if not self.query:
            return VERSION + self.path
        plain = {
            key: json.dumps(value) if isinstance(value, dict | list) else value
            for key, value in self.query.items()
            if value is not None
        }
        return f"{VERSION}{self.path}?{urlencode(plain)}"

    def payload(self) -> tuple[bytes, str]:
        """(bytes, content type) of the body."""
        if isinstance(self.body, bytes):
            return self.body, "application/x-tar"
        return (b"" if self.body is None else json.dumps(self.body).encode()), "application/json"


def send(path: Path, request: Request, timeout: float = 120) -> http.client.HTTPResponse:
    """Send and return the open response; raises ApiError from status 400 on."""
    connection = UnixConnection(path, timeout)
    data, kind = request.payload()
    with contextlib.suppress(BrokenPipeError):  # refused before all was sent: the answer says why
        connection.request(request.method, request.target, data, {"Content-Type": kind})
    response = connection.getresponse()
    if response.status >= 400:
        raise_for(response.status, response.read())
    return response


def raise_for(status: int, body: bytes) -> None:
    """ApiError with Docker's `message` when there is one."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")
    raise ApiError(status, message)


def hijack(path: Path, request: Request, timeout: float = 120) -> socket.socket:
    """Docker's raw stream: the connection after `101 UPGRADED` (or 200), headers eaten."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    sock.connect(str(path))
    data, kind = request.payload()
    head = (
        f"{request.method} {request.target} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    sock.sendall(head.encode() + data)
    status, length = read_head(sock)
    if status not in {101, 200}:
        body = b""
        while len(body) < length and (piece := sock.recv(length - len(body))):
            body += piece
        raise_for(status, body)
    return sock


def read_head(sock: socket.socket) -> tuple[int, int]:
    """Status and Content-Length of an answer, read byte by byte: what follows is the stream."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise ApiError(0, f"the engine hung up after {answer!r}")
        answer += byte
    head, *fields = answer.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
    return int(head.split()[1]), int(headers.get("content-length", 0))


def demultiplex(stream: Any) -> Iterator[tuple[str, bytes]]:
    """Docker's stdcopy frames as (stream name, bytes); `stream` has recv or read."""
    take = stream.recv if hasattr(stream, "recv") else stream.read

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = take(count - len(data))
            if not piece:
                break
            data += piece
        return data

    while len(head := exactly(8)) == 8:
        kind, length = struct.unpack(">BxxxL", head)
        yield STREAMS[kind], exactly(length)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the end of the stream."""
    parts = []
    while piece := sock.recv(65536):
        parts.append(piece)
    return b"".join(parts)
