"""The API's server in this process, on a socket of its own, and raw ways to speak to it."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.api.answer import Answer
from proa.api.message import Bounds
from proa.api.request import Request
from proa.api.server import Server
from tests.unit.fake_engine import FakeEngine


@dataclass(frozen=True)
class Got:
    """One answer, read to its end."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Docker's error text."""
        return str(self.json["message"])


@contextlib.contextmanager
def served(
    application: Callable[[Request], Answer], bounds: Bounds | None = None
) -> Iterator[Path]:
    """The path of a socket at which `application` answers."""
    with tempfile.TemporaryDirectory(prefix="proa-api-") as directory:
        path = Path(directory) / "api.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(256)
            server = Server(listener, application, bounds)
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            yield path
            server.stop()
            thread.join(5)
            assert not thread.is_alive()


def connect(path: Path, timeout: float = 10) -> socket.socket:
    """A raw connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout)
    sock.connect(str(path))
    return sock


def exchange(path: Path, data: bytes) -> Got:
    """Send bytes on a connection of its own and read one answer."""
    with connect(path) as sock:
        sock.sendall(data)
        return read_answer(sock.makefile("rb"))


def call(path: Path, method: str, target: str, body: Any = None) -> Got:
    """One JSON request."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(data)}\r\n"
    kind = "Content-Type: application/json\r\n" if body is not None else ""
    with connect(path) as sock:
        sock.sendall(f"{head}{kind}\r\n".encode() + data)
        return read_answer(sock.makefile("rb"), head_only=method == "HEAD")


def read_answer(stream: Any, *, head_only: bool = False) -> Got:
    """Parse one answer; its body must end as its head says."""
    status, fields = read_head(stream)
    if head_only or status in (204, 304):
        return Got(status, fields, b"")
    if fields.get("transfer-encoding") == "chunked":
        return Got(status, fields, b"".join(read_chunks(stream)))
    if "content-length" in fields:
        length = int(fields["content-length"])
        body = stream.read(length)
        assert len(body) == length
        return Got(status, fields, body)
    return Got(status, fields, stream.read())


def read_head(stream: Any) -> tuple[int, dict[str, str]]:
    """Status and fields."""
    line = stream.readline()
    assert line.startswith(b"HTTP/1.1 "), line
    fields = {}
    while (field := stream.readline().rstrip(b"\r\n")) != b"":
        name, _, value = field.decode().partition(": ")
        fields[name.lower()] = value
    return int(line.split()[1]), fields


def read_chunks(stream: Any) -> Iterator[bytes]:
    """Chunks up to the terminator, which must be there."""
    while True:
        size = int(stream.readline(), 16)
        data = stream.read(size)
        assert stream.read(2) == b"\r\n"
        if size == 0:
            return
        yield data


@dataclass(frozen=True)
class Api:
    """A served fake engine."""

    path: Path
    engine: FakeEngine

    def __call__(self, method: str, target: str, body: Any = None) -> Got:
        return call(self.path, method, target, body)

    def create(self, *command: str, name: str = "one", **more: Any) -> str:
        """A new instance's id."""
        body = {"Image": "tiny", "Cmd": list(command), **more}
        got = self("POST", f"/v1.43/containers/create?name={name}", body)
        assert got.status == 201, got.body
        assert got.json["Warnings"] == []
        return str(got.json["Id"])

    def hijack(self, target: str, body: bytes = b"") -> tuple[socket.socket, Any, dict[str, str]]:
        """An upgraded connection: socket, reader, answer fields."""
        sock = connect(self.path)
        head = f"POST {target} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall((head + kind).encode() + body)
        stream = sock.makefile("rb")
        status, fields = read_head(stream)
        assert status == 101
        return sock, stream, fields
