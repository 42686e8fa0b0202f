"""One client's connection, HTTP/1.1 with keep-alive.

Every answer leaves in one send when it is whole, chunked when it is streamed, or not at all when
the handler took the socket over.
"""

from __future__ import annotations

import contextlib
import io
import logging
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from proa.api.answer import (
    Answer,
    Produced,
    Reply,
    Streamed,
    stream_head,
    whole_head,
)
from proa.api.errors import error_reply
from proa.api.message import (
    Body,
    Bounds,
    Disconnected,
    Head,
    Malformed,
    Wire,
    body_of,
    read_head,
)
from proa.api.request import FILE_BYTES, Request
from proa.errors import ProaError

LOG = logging.getLogger("proa.api")
LINGER_BYTES = 16 << 20
LINGER_SECONDS = 2.0


class Connection:
    """One client's connection: reads requests, writes answers, until either side has enough."""

    def __init__(
        self,
        sock: socket.socket,
        application: Callable[[Request], Answer],
        bounds: Bounds,
        busy: AbstractContextManager[None],
    ) -> None:
        self._socket = sock
        self._application = application
        self._bounds = bounds
        self._busy = busy
        self._wire = Wire(sock, bounds)
        self._handed_over = False

    def serve(self) -> None:
        """Serve requests until the connection ends; closes it unless it was handed over."""
        _receive_timeout(self._socket, self._bounds.stall_seconds)
        try:
            while self._wire.wait() and self._serve_one():
                pass
        except (Disconnected, OSError):
            pass
        finally:
            if not self._handed_over:
                self._socket.close()

    def hand_over(self, request: Request, kind: str) -> socket.socket:
        """See `Request.upgrade`."""
        request.body.all(self._bounds.body_bytes)
        upgrade = "upgrade" in request.fields
        status = "101 UPGRADED" if upgrade else "200 OK"
        more = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        self._handed_over = True
        _receive_timeout(self._socket, 0)
        try:
            self._send(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}\r\n".encode())
        except OSError:
            self._socket.close()
            raise
        return self._socket

    def _serve_one(self) -> bool:
        try:
            head = read_head(self._wire, self._bounds)
            body = body_of(head, self._wire, self._bounds)
            request = Request(head, body, self.hand_over)
        except Malformed as error:
            self._send(whole_head(error_reply(error), False) + error_reply(error).body)
            self._linger()
            return False
        if head.fields.get("expect", "").lower() == "100-continue":
            body.invitation = b"HTTP/1.1 100 Continue\r\n\r\n"
            body.send = self._send
        with self._busy:
            answer = self._answer(request)
            if answer is None or self._handed_over:
                return False
            keep = head.keep_alive and self._drained(body)
            if isinstance(answer, Reply):
                raw = whole_head(answer, keep)
                self._send(raw if head.method == "HEAD" else raw + answer.body)
        if not isinstance(answer, Reply):
            keep = self._stream(answer, head, keep)
        if not keep:
            self._linger()
        return keep

    def _answer(self, request: Request) -> Answer:
        try:
            return self._application(request)
        except ProaError as error:
            return error_reply(error)
        except (Disconnected, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:
            LOG.exception("%s %s failed", request.method, request.path)
            return error_reply(ProaError("internal error", hint="the engine's log says more"))

    def _stream(self, answer: Streamed | Produced, head: Head, keep: bool) -> bool:
        chunked = head.minor == 1
        self._send(stream_head(answer, chunked, keep))
        if head.method == "HEAD":
            return keep and chunked
        send = self._send_chunk if chunked else self._send
        try:
            if isinstance(answer, Streamed):
                self._pieces(answer.pieces, send)
            else:
                with io.BufferedWriter(_Sink(send), FILE_BYTES) as sink:
                    answer.produce(sink)
        except ProaError as error:  # too late for a status: the client sees a truncated body
            LOG.warning("answer cut short: %s", error)
            return False
        except (Disconnected, OSError):
            raise
        except Exception:
            LOG.exception("answer cut short")
            return False
        if chunked:
            self._send(b"0\r\n\r\n")
        return keep and chunked

    def _pieces(self, pieces: Iterator[bytes | None], send: Callable[[bytes], None]) -> None:
        try:
            for piece in pieces:
                if piece:
                    send(piece)
                elif piece is None and self._gone():
                    raise Disconnected
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _send_chunk(self, data: bytes) -> None:
        self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def _gone(self) -> bool:
        """Whether the client has closed; one that only ended its own sending still listens."""
        poll = select.poll()
        poll.register(self._socket, 0)
        return bool(poll.poll(0))

    def _drained(self, body: Body) -> bool:
        """Take a small forgotten body off the wire; a large one ends the connection."""
        if body.finished:
            return True
        if body.invitation:
            return False
        try:
            body.patience_seconds = 0.0
            body.all(self._bounds.body_bytes)
        except Malformed:
            return False
        return True

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _linger(self) -> None:
        """Let a client that is still sending read our answer before the connection resets."""
        deadline = time.monotonic() + LINGER_SECONDS
        left = LINGER_BYTES
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            _receive_timeout(self._socket, LINGER_SECONDS)
            while left > 0 and time.monotonic() < deadline:
                count = len(self._socket.recv(64 << 10))
                if count == 0:
                    return
                left -= count


class _Sink(io.RawIOBase):
    """A file whose bytes go to a client."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data: Any, /) -> int:
        """Send all of `data`."""
        if piece := bytes(data):
            self._send(piece)
        return len(piece)


def _receive_timeout(sock: socket.socket, seconds: float) -> None:
    """The kernel's own timeout: unlike `settimeout` it leaves the socket blocking."""
    whole = int(seconds)
    value = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
