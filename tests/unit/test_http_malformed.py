"""What is no HTTP as the server accepts it: every kind, its status, the connection's end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.api.answer import Answer, Reply
from proa.api.message import Bounds
from proa.api.request import Request
from tests.unit.api_server import exchange, served


def application(request: Request) -> Answer:
    """Gives back the body."""
    return Reply(200, request.body.all(1 << 20), "text/plain")


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """A server that is quick to lose patience."""
    with served(application, Bounds(stall_seconds=0.4, head_seconds=1.0)) as path:
        yield path


REFUSED = [
    (b"nonsense\r\n\r\n", 400),
    (b"GET /unread HTTP/2.0\r\n\r\n", 505),
    (b"GET http://d/unread HTTP/1.1\r\nHost: d\r\n\r\n", 400),
    (b"get /unread HTTP/1.1\r\nHost: d\r\n\r\n", 400),
    (b"GET  /unread HTTP/1.1\r\nHost: d\r\n\r\n", 400),
    (b"GET /unread\x00 HTTP/1.1\r\nHost: d\r\n\r\n", 400),
    (b"GET /un%00read HTTP/1.1\r\nHost: d\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\nHost: d\r\nHost: e\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\nHost: d\r\n folded: x\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\nHost : d\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\nHost: d\nX: y\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\nHost: d\r\nX: a\x01b\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\nHost: d\r\nnocolon\r\n\r\n", 400),
    (b"GET /unread HTTP/1.1\r\nHost: d\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    (b"GET /unread HTTP/1.1\r\nHost: d\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    (b"GET /" + b"x" * 100_000, 431),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: +3\r\n\r\nabc", 400),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 0x3\r\n\r\nabc", 400),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: \xb2\r\n\r\nabc", 400),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 9999999\r\n\r\n", 413),
    (
        b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /boom HTTP/1.1\r\n\r\n",
        400,
    ),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
    (
        b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
]
CHUNKS = [
    (b"3\r\nabc\r\n0\r\n\r\n", 200),
    (b"3;name=value\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", 200),
    (b"g\r\nabc\r\n0\r\n\r\n", 400),
    (b"-3\r\nabc\r\n0\r\n\r\n", 400),
    (b"+3\r\nabc\r\n0\r\n\r\n", 400),
    (b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    (b"3\nabc\r\n0\r\n\r\n", 400),
    (b"3\r\nabcd\r\n0\r\n\r\n", 400),
    (b"3\r\nabc0\r\n\r\n", 400),
    (b"\r\n3\r\nabc\r\n0\r\n\r\n", 400),
    (b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n", 400),
    (b"3;" + b"x" * 1000 + b"\r\nabc\r\n0\r\n\r\n", 400),
    (b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 400),
    (b"fffffffffffffff\r\n" + b"a" * 2_000_000, 413),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_malformed_is_refused_and_ends_the_connection(path: Path, data: bytes, status: int) -> None:
    got = exchange(path, data)
    assert got.status == status
    assert got.fields["connection"] == "close"
    assert got.message


@pytest.mark.parametrize(("chunks", "status"), CHUNKS)
def test_chunked_bodies(path: Path, chunks: bytes, status: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = exchange(path, head + chunks)
    assert got.status == status
    if status == 200:
        assert got.body == b"abc"
