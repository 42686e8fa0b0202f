"""The way between two engines: a connection taken over from the API, with messages and data on it.

Every frame has a header: kind (0 a message in JSON, 1 data), target of the data, length, offset.
The other engine is believed no more than a client: lengths, targets and offsets are checked.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from proa.errors import Conflict, Corrupt, EngineUnavailable, Invalid, ProaError, Unsupported
from proa.isolation.vm.disks import data_ranges

HEADER = struct.Struct("<BBxxIQ")
MESSAGE, DATA = 0, 1
MESSAGE_MAXIMUM = 4 << 20
PIECE_BYTES = 1 << 20
ANSWER_SECONDS = 60.0
SCHEME = "unix://"
PATH = "/proa/migration"


@dataclass(frozen=True)
class Target:
    """Where data of one number goes: an open file that may get so large."""

    descriptor: int
    size_bytes: int


class Wire:
    """One connection; it has to be answered in time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        connection.settimeout(ANSWER_SECONDS)

    def close(self) -> None:
        """The other side learns of it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send(self, kind: str, **facts: Any) -> None:
        """One message."""
        data = json.dumps({"kind": kind, **facts}).encode()
        self._send(HEADER.pack(MESSAGE, 0, len(data), 0) + data)

    def refuse(self, error: ProaError) -> None:
        """Tell why not."""
        with suppress(ProaError):
            self.send("error", code=error.code, message=error.message, hint=error.hint)

    def send_ranges(self, target: int, source: int, ranges: Iterable[tuple[int, int]]) -> int:
        """Ranges of a file; how many bytes they were."""
        total = 0
        for start, end in ranges:
            while start < end:
                data = os.pread(source, min(PIECE_BYTES, end - start), start)
                if not data:
                    raise Corrupt("a file became shorter while it was sent")
                self._send(HEADER.pack(DATA, target, len(data), start))
                self._send(data)
                start += len(data)
                total += len(data)
        return total

    def send_file(self, target: int, source: int) -> int:
        """What a file holds, without its holes."""
        return self.send_ranges(target, source, data_ranges(source))

    def expect(self, kind: str, targets: Mapping[int, Target] | None = None) -> dict[str, Any]:
        """The next message, which must be of this kind; data before it goes to its target.

        Raises what the other side says it refuses for, Corrupt for nonsense, EngineUnavailable.
        """
        while True:
            what, number, length, offset = HEADER.unpack(self._read(HEADER.size))
            if what == DATA and length <= PIECE_BYTES:
                self._store((targets or {}).get(number), offset, self._read(length))
            elif what == MESSAGE and length <= MESSAGE_MAXIMUM:
                return _checked(kind, self._read(length))
            else:
                raise Corrupt("the other engine sends nonsense")

    def _store(self, target: Target | None, offset: int, data: bytes) -> None:
        if target is None or offset + len(data) > target.size_bytes:
            raise Corrupt("the other engine sends data nobody asked for")
        os.pwrite(target.descriptor, data, offset)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise EngineUnavailable(f"the other engine went away: {error.strerror}") from error

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                piece = self._socket.recv(length - len(data))
            except OSError as error:
                raise EngineUnavailable(f"the other engine went away: {error}") from error
            if not piece:
                raise EngineUnavailable("the other engine went away")
            data += piece
        return bytes(data)


def _checked(kind: str, data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
        found = message["kind"]
    except (ValueError, KeyError, TypeError):
        raise Corrupt("the other engine sends nonsense") from None
    if found == "error":
        raise Conflict(
            f"the other engine refuses: {message.get('message', '')}", hint=message.get("hint", "")
        )
    if found != kind:
        raise Corrupt(f"the other engine says '{found}' where '{kind}' is due")
    return dict(message)


# -- reaching an engine ---------------------------------------------------------------------------


def connect(where: str, path: str) -> Wire:
    """A wire to an engine's API.  Raises Invalid, Unsupported, EngineUnavailable."""
    connection, status, _ = _request(
        where, f"POST {path}", "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    )
    if status not in (101, 200):
        connection.close()
        raise Unsupported(f"the engine at '{where}' takes no machines", hint="it may be older")
    return Wire(connection)


def runs(where: str, instance_id: str) -> bool | None:
    """Whether an instance runs at an engine; None when it cannot be asked."""
    try:
        connection, status, head = _request(
            where, f"GET /containers/{instance_id}/json", "Connection: close\r\n"
        )
    except ProaError:
        return None
    with connection:
        if status == 404:
            return False
        body = bytearray(head.partition(b"\r\n\r\n")[2])
        with suppress(OSError):
            while len(body) < MESSAGE_MAXIMUM and (piece := connection.recv(1 << 16)):
                body += piece
    start, end = body.find(b"{"), body.rfind(b"}")
    try:
        return bool(json.loads(bytes(body[start : end + 1]))["State"]["Running"])
    except (ValueError, KeyError, TypeError):
        return None


def tell(where: str, line: str) -> None:
    """One request whose answer does not matter; nobody there is fine."""
    with suppress(ProaError):
        connection, _, _ = _request(where, line, "Content-Length: 0\r\nConnection: close\r\n")
        connection.close()


def _request(where: str, line: str, fields: str) -> tuple[socket.socket, int, bytes]:
    if not where.startswith(SCHEME):
        raise Invalid(f"'{where}' is no engine's socket", hint="unix:///path of the other engine")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_SECONDS)
    try:
        connection.connect(where.removeprefix(SCHEME))
        connection.sendall(f"{line} HTTP/1.1\r\nHost: proa\r\n{fields}\r\n".encode())
        head = bytearray()
        while b"\r\n\r\n" not in head and len(head) < 1 << 16:
            piece = connection.recv(1)
            if not piece:
                break
            head += piece
        return connection, int(head.split(b" ", 2)[1]), bytes(head)
    except (OSError, ValueError, IndexError) as error:
        connection.close()
        raise EngineUnavailable(f"no engine answers at '{where}'") from error
