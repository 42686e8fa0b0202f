"""A responder with canned answers on a Unix socket: what client code is tested against."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed."""
        return json.loads(self.body)


@dataclass
class Reply:
    """What to answer: JSON, bytes after the head of a hijacked connection, or just bytes.

    After `stream` and `raw` the connection ends.
    """

    value: object = None
    status: int = 200
    stream: bytes | None = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes of the answer."""
        if self.raw is not None:
            return self.raw
        if self.stream is not None:
            head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            return head.encode() + self.stream
        body = b"" if self.value is None else json.dumps(self.value).encode()
        lines = [f"HTTP/1.1 {self.status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


Handler = Callable[[Seen], Reply]


class CannedEngine:
    """Answers by `handler` until closed; `seen` holds the requests in order of arrival."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path = path
        self.seen: list[Seen] = []
        self._handler = handler
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting."""
        self._listener.close()

    def targets(self) -> list[str]:
        """`METHOD target` of every request."""
        return [f"{one.method} {one.target}" for one in self.seen]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            while (request := self._read(reader)) is not None:
                self.seen.append(request)
                reply = self._handler(request)
                with contextlib.suppress(BrokenPipeError):
                    connection.sendall(reply.encode())
                if reply.stream is not None or reply.raw is not None:
                    return

    def _read(self, reader: Any) -> Seen | None:
        line = reader.readline()
        if not line:
            return None
        method, target, _ = line.decode().split(" ", 2)
        headers: dict[str, str] = {}
        while (header := reader.readline().decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            return Seen(method, target, self._chunks(reader))
        return Seen(method, target, reader.read(int(headers.get("content-length", 0))))

    def _chunks(self, reader: Any) -> bytes:
        body = b""
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
        return body
