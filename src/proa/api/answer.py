"""Answers: what a handler may give back, and how their heads look on the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import proa

API_VERSION = (1, 43)
API_VERSION_MINIMUM = (1, 24)
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_COMMON = (
    f"Api-Version: {API_VERSION[0]}.{API_VERSION[1]}\r\nDocker-Experimental: false\r\n"
    f"Ostype: linux\r\nServer: Proa/{proa.__version__} (linux)\r\n"
)


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Streamed:
    """An answer that comes in pieces; a None piece only asks whether the client is still there."""

    pieces: Iterator[bytes | None]
    kind: str = "application/json"
    fields: tuple[tuple[str, str], ...] = ()


class Writer(Protocol):
    """Where a producer writes."""

    def write(self, data: bytes, /) -> int:
        """Send `data`."""


@dataclass(frozen=True)
class Produced:
    """An answer somebody writes as to a file."""

    produce: Callable[[Writer], object]
    kind: str = "application/json"
    fields: tuple[tuple[str, str], ...] = ()


Answer = Reply | Streamed | Produced | None  # None: the handler took the socket over


def json_bytes(value: object) -> bytes:
    """Compact JSON and a newline, as dockerd writes it."""
    return (
        json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
        + b"\n"
    )


def json_reply(value: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, json_bytes(value))


class _Clock:
    """The Date header, made once a second."""

    second = 0
    text = ""

    @classmethod
    def header(cls) -> str:
        now = int(time.time())
        if now != cls.second:
            cls.text = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(now))
            cls.second = now
        return cls.text


def _start_of(status: int, fields: tuple[tuple[str, str], ...]) -> str:
    more = "".join(f"{name}: {value}\r\n" for name, value in fields)
    reason = _REASONS.get(status, "Unknown")
    return f"HTTP/1.1 {status} {reason}\r\n{_COMMON}{_Clock.header()}{more}"


def whole_head(reply: Reply, keep: bool) -> bytes:
    """The head of a whole answer; `keep` says whether the connection serves on."""
    content = ""
    if reply.status not in (204, 304):
        content = f"Content-Type: {reply.kind}\r\nContent-Length: {len(reply.body)}\r\n"
    close = "" if keep else "Connection: close\r\n"
    return f"{_start_of(reply.status, reply.fields)}{content}{close}\r\n".encode("latin-1")


def stream_head(answer: Streamed | Produced, chunked: bool, keep: bool) -> bytes:
    """The head of an answer whose length nobody knows yet."""
    coding = "Transfer-Encoding: chunked\r\n" if chunked else ""
    close = "" if keep and chunked else "Connection: close\r\n"
    start = _start_of(200, answer.fields)
    return f"{start}Content-Type: {answer.kind}\r\n{coding}{close}\r\n".encode("latin-1")
