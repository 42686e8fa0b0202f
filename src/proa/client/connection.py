"""HTTP/1.1 over a Unix socket: only what the engine's API needs, on the C socket module.

One `Connection` carries many exchanges, one after the other; `begin` writes a request and returns,
so that several connections can be under way, and requests can be pipelined as long as their
answers are read in order.  `hijack` ends HTTP on the connection and hands out the raw socket.
"""

from __future__ import annotations

import os
from _socket import (
    AF_UNIX,
    MSG_NOSIGNAL,
    MSG_PEEK,
    SHUT_RDWR,
    SHUT_WR,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    socket,
)

from proa.client import fastjson, faults
from proa.errors import EngineUnavailable, Invalid, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

CHUNK_BYTES = 64 * 1024
HEAD_MAXIMUM_BYTES = 64 * 1024

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@")


def quote(text: str) -> str:
    """Percent-encode for a path or a query."""
    data = os.fsencode(text)
    return "".join(chr(b) if b in _UNRESERVED else f"%{b:02X}" for b in data)


def target(path: str, query: dict[str, object] | None = None) -> str:
    """A request target; values that are None are left out, lists and dicts become JSON."""
    pairs = []
    for key, value in (query or {}).items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = "1" if value else "0"
        elif isinstance(value, (dict, list)):
            value = fastjson.dumps(value)
        pairs.append(f"{key}={quote(str(value))}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def instance_path(reference: str, rest: str = "") -> str:
    """The path of an instance: its name or id is one component, whatever the user typed."""
    return f"/containers/{_component(reference)}{rest}"


def own_path(reference: str, rest: str) -> str:
    """The path of what Proa alone has of an instance."""
    return f"/proa/instances/{_component(reference)}{rest}"


def image_path(reference: str, rest: str = "") -> str:
    """The path of an image; slashes belong to its name."""
    return f"/images/{quote(reference)}{rest}"


def _component(reference: str) -> str:
    if not reference.strip("/."):
        raise Invalid(f"'{reference}' is not a name")
    return quote(reference.removeprefix("/")).replace("/", "%2F")


class Answer:
    """Status, headers (lower-case names) and the body, read as it is asked for."""

    def __init__(
        self, connection: Connection, status: int, headers: dict[str, str], *, bodiless: bool
    ) -> None:
        self.status = status
        self.headers = headers
        self.connection = connection
        self.reusable = headers.get("connection", "").lower() != "close"
        self._chunked = "chunked" in headers.get("transfer-encoding", "")
        length = headers.get("content-length")
        self._left: int | None = int(length) if length and length.isdigit() else None
        if bodiless or status in (204, 304) or 100 <= status < 200:
            self._chunked, self._left = False, 0
        elif self._chunked:
            self._left = 0

    def parts(self) -> Iterator[bytes]:
        """The body's pieces as they arrive."""
        if self._chunked:
            yield from self._chunks()
            return
        while self._left is None or self._left > 0:
            limit = CHUNK_BYTES if self._left is None else min(self._left, CHUNK_BYTES)
            data = self.connection.receive(limit)
            if not data:
                if self._left is not None:
                    raise self.connection.lost()
                return
            if self._left is not None:
                self._left -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while self._chunked:
            size = self._chunk_size()
            left = size
            while left:
                data = self.connection.receive(min(left, CHUNK_BYTES))
                if not data:
                    raise self.connection.lost()
                left -= len(data)
                yield data
            self.connection.read_line()
            if size == 0:
                self._chunked = False

    def _chunk_size(self) -> int:
        line = self.connection.read_line().split(b";")[0]
        try:
            return int(line, 16)
        except ValueError:
            raise EngineUnavailable(f"the engine sent a broken chunk '{line!r}'") from None

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.parts())

    def json(self) -> Any:
        """The whole body as JSON; None when there is none."""
        body = self.read()
        return fastjson.loads(body) if body.strip() else None

    def json_lines(self) -> Iterator[Any]:
        """A stream of JSON values, one a line."""
        rest = b""
        for part in self.parts():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.strip():
                    yield fastjson.loads(line)
        if rest.strip():
            yield fastjson.loads(rest)


class Upload:
    """Something to write a body to; what `Connection.upload` hands to its producer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        """Send one chunk."""
        if data:
            self._connection.send(b"%x\r\n%b\r\n" % (len(data), data))
        return len(data)


class Connection:
    """One connection to the engine; a context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.early = b""
        self._buffer = b""
        self._pending: list[str] = []
        self.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise EngineUnavailable(
                f"no engine answers at '{path}': {(error.strerror or str(error)).lower()}",
                hint="start one with `proa engine start`",
            ) from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back; more than once is fine."""
        self.socket.close()

    # -- requests ---------------------------------------------------------------------------

    def begin(
        self, method: str, url: str, body: object = None, headers: dict[str, str] | None = None
    ) -> None:
        """Write a request; `body` is bytes, or a value to send as JSON.  Answer: `finish`."""
        extra = dict(headers or {})
        data = b""
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data = fastjson.dumps(body).encode("utf-8", "surrogateescape")
            extra["Content-Type"] = "application/json"
        if data or method in ("POST", "PUT"):
            extra["Content-Length"] = str(len(data))
        self._pending.append(f"{method} {url}")
        self.send(_head(method, url, extra) + data)

    def answers_within(self, seconds: float) -> bool:
        """Whether an answer begins to arrive in that time."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, MSG_PEEK)
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(None)
        return True

    def finish(self) -> Answer:
        """The oldest unanswered request's answer.  Raises a ProaError for a failed one."""
        request = self._pending.pop(0)
        answer = self._read_head(request)
        if answer.status >= 300:
            raise faults.from_answer(answer.status, answer.read(), request)
        return answer

    def request(
        self, method: str, url: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One exchange."""
        self.begin(method, url, body, headers)
        return self.finish()

    def upload(self, method: str, url: str, produce: Callable[[Upload], None]) -> Answer:
        """One exchange whose body, a tar, `produce` writes piece by piece.

        An engine that refuses early answers and closes before the end: its answer counts.
        """
        self._pending.append(f"{method} {url}")
        headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
        self.send(_head(method, url, headers))
        try:
            produce(Upload(self))
            self.send(b"0\r\n\r\n")
        except EngineUnavailable as broken:
            try:
                return self.finish()
            except EngineUnavailable:
                raise broken from None
        return self.finish()

    def begin_hijack(self, method: str, url: str, body: object = None) -> None:
        """Ask for a raw stream; `hijack` takes it."""
        self.begin(method, url, body, {"Connection": "Upgrade", "Upgrade": "tcp"})

    def hijack(self) -> None:
        """From here on `socket` is a raw stream; `early` holds what was read of it already."""
        request = self._pending.pop(0)
        answer = self._read_head(request)
        if answer.status not in (101, 200):
            raise faults.from_answer(answer.status, answer.read(), request)
        self.early, self._buffer = self._buffer, b""

    # -- bytes --------------------------------------------------------------------------------

    def receive(self, limit: int) -> bytes:
        """Up to `limit` bytes; empty at the end."""
        if self._buffer:
            data, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return data
        return self._receive_raw(limit)

    def read_line(self) -> bytes:
        """One line without its end."""
        while b"\n" not in self._buffer:
            data = self._receive_raw(CHUNK_BYTES)
            if not data or len(self._buffer) > HEAD_MAXIMUM_BYTES:
                raise self.lost()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def half_close(self) -> None:
        """Say that nothing more will be written."""
        self.socket.shutdown(SHUT_WR)

    def abandon(self) -> None:
        """End both directions, also for a thread that is in the middle of sending."""
        try:
            self.socket.shutdown(SHUT_RDWR)
        except OSError:
            return  # the other side was first

    def lost(self) -> ProaError:
        """The error for an engine that went away in mid-sentence."""
        return EngineUnavailable(
            f"the engine at '{self.path}' closed the connection before it answered",
            hint="instances are not affected; see the end of its log with `proa engine status`",
        )

    def send(self, data: bytes) -> None:
        """Write all of it."""
        try:
            self.socket.sendall(data, MSG_NOSIGNAL)
        except ConnectionError:
            raise self.lost() from None

    def _receive_raw(self, limit: int) -> bytes:
        try:
            return self.socket.recv(limit)
        except ConnectionError:
            raise self.lost() from None

    def _read_head(self, request: str) -> Answer:
        line = self.read_line()
        fields = line.split(None, 2)
        if len(fields) < 2 or not line.startswith(b"HTTP/1.") or not fields[1].isdigit():
            raise EngineUnavailable(f"what answers at '{self.path}' does not speak HTTP")
        headers: dict[str, str] = {}
        while header := self.read_line():
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        status = int(fields[1])
        if status == 100:
            return self._read_head(request)
        return Answer(self, status, headers, bodiless=request.startswith("HEAD "))


def _head(method: str, url: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {url} HTTP/1.1", "Host: proa"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
