"""The HTTP server itself: what it accepts, what it refuses, and that it never falls over."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.api.answer import Answer, Produced, Reply, Streamed, json_reply
from proa.api.message import Bounds
from proa.api.request import Request
from proa.errors import Conflict, Invalid
from tests.unit.api_server import (
    call,
    connect,
    exchange,
    read_answer,
    read_chunks,
    read_head,
    served,
)

BOUNDS = Bounds(stall_seconds=0.4, head_seconds=1.0, idle_seconds=1.5, connections=200)
closed = threading.Event()


def application(request: Request) -> Answer:
    """One small handler per thing to see."""
    match request.path:
        case "/echo":
            return Reply(200, request.body.all(1 << 20), "text/plain")
        case "/file":
            return Reply(200, str(len(request.file().read())).encode())
        case "/partly":
            return Reply(200, request.file().read(1))
        case "/query":
            return json_reply(request.query)
        case "/unread":
            return Reply(200, b"fine")
        case "/boom":
            raise ZeroDivisionError("secret detail")
        case "/conflict":
            raise Conflict("it is 'so'", hint="do otherwise")
        case "/stream":
            return Streamed(iter([b"a" * 10, b"", b"b" * 20]), "text/plain")
        case "/cut":
            return Streamed(_cut(), "text/plain")
        case "/endless":
            closed.clear()
            return Streamed(_endless(), "text/plain")
        case "/produced":
            return Produced(lambda file: [file.write(b"z" * 1000) for _ in range(200)])
        case "/hijack":
            sock = request.upgrade("application/vnd.docker.raw-stream")
            threading.Thread(target=_echo, args=(sock,), daemon=True).start()
            return None
    return json_reply({"message": "page not found"}, 404)


def _cut() -> Iterator[bytes]:
    yield b"begun"
    raise Invalid("too late")


def _endless() -> Iterator[bytes | None]:
    try:
        while True:
            yield None
            time.sleep(0.02)
    finally:
        closed.set()


def _echo(sock: socket.socket) -> None:
    with sock:
        while data := sock.recv(65536):
            sock.sendall(data)


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with served(application, BOUNDS) as path:
        yield path


def test_get_and_common_fields(path: Path) -> None:
    got = exchange(path, b"GET /unread HTTP/1.1\r\nHost: d\r\n\r\n")
    assert (got.status, got.body) == (200, b"fine")
    assert got.fields["api-version"] == "1.43"
    assert got.fields["ostype"] == "linux"
    assert "date" in got.fields and got.fields["server"].startswith("Proa/")


def test_a_chunked_body_leaves_the_next_request_alone(path: Path) -> None:
    head = b"POST /file HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(path) as sock:
        sock.sendall(head + b"3\r\nabc\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n" + head)
        stream = sock.makefile("rb")
        assert read_answer(stream).body == b"19"
        sock.sendall(b"0\r\n\r\n")
        assert read_answer(stream).body == b"0"


def test_keep_alive_and_pipelining(path: Path) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\nhello"
    with connect(path) as sock:
        sock.sendall(request * 20)
        stream = sock.makefile("rb")
        assert [read_answer(stream).body for _ in range(20)] == [b"hello"] * 20


def test_an_unread_body_is_skipped(path: Path) -> None:
    with connect(path) as sock:
        sock.sendall(b"POST /unread HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\nGET /")
        sock.sendall(b"GET /unread HTTP/1.1\r\nHost: d\r\n\r\n")
        stream = sock.makefile("rb")
        assert read_answer(stream).status == read_answer(stream).status == 200


def test_a_half_read_body_is_skipped(path: Path) -> None:
    size = 300_000
    with connect(path) as sock:
        sock.sendall(b"POST /partly HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % size)
        sock.sendall(b"x" * size + b"GET /unread HTTP/1.1\r\nHost: d\r\n\r\n")
        stream = sock.makefile("rb")
        assert read_answer(stream).body == b"x"
        assert read_answer(stream).body == b"fine"


def test_a_large_unread_body_still_gets_its_answer(path: Path) -> None:
    size = 12 << 20
    with connect(path) as sock:
        sock.sendall(b"POST /conflict HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % size)
        sock.sendall(b"x" * size)
        assert read_answer(sock.makefile("rb")).status == 409


def test_close_and_http_1_0(path: Path) -> None:
    for head in (b"HTTP/1.0\r\n\r\n", b"HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"):
        with connect(path) as sock:
            sock.sendall(b"GET /unread " + head)
            stream = sock.makefile("rb")
            assert read_answer(stream).fields["connection"] == "close"
            assert stream.read() == b""
    with connect(path) as sock:
        sock.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        stream = sock.makefile("rb")
        status, fields = read_head(stream)
        assert status == 200 and "transfer-encoding" not in fields
        assert stream.read() == b"a" * 10 + b"b" * 20


def test_expect_continue(path: Path) -> None:
    with connect(path) as sock:
        sock.sendall(
            b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        stream = sock.makefile("rb")
        assert read_head(stream)[0] == 100
        sock.sendall(b"ok")
        assert read_answer(stream).body == b"ok"


def test_a_refused_expectation_reads_no_body(path: Path) -> None:
    got = exchange(
        path,
        b"POST /conflict HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    )
    assert got.status == 409 and got.fields["connection"] == "close"


def test_errors_show_message_and_hint_but_never_a_traceback(path: Path) -> None:
    got = call(path, "GET", "/conflict")
    assert (got.status, got.message) == (409, "it is 'so'\ndo otherwise")
    got = call(path, "GET", "/boom")
    assert got.status == 500
    assert b"secret" not in got.body and b"Traceback" not in got.body


def test_streams_and_produced_bodies(path: Path) -> None:
    assert call(path, "GET", "/stream").body == b"a" * 10 + b"b" * 20
    assert call(path, "GET", "/produced").body == b"z" * 200_000
    with connect(path) as sock:
        sock.sendall(
            b"HEAD /stream HTTP/1.1\r\nHost: d\r\n\r\nGET /unread HTTP/1.1\r\nHost: d\r\n\r\n"
        )
        stream = sock.makefile("rb")
        assert read_answer(stream, head_only=True).status == 200
        assert read_answer(stream).body == b"fine"


def test_a_stream_that_fails_is_visibly_cut(path: Path) -> None:
    with connect(path) as sock:
        sock.sendall(b"GET /cut HTTP/1.1\r\nHost: d\r\n\r\n")
        stream = sock.makefile("rb")
        read_head(stream)
        assert stream.read() == b"5\r\nbegun\r\n"  # no terminating chunk


def test_a_stream_ends_when_its_client_has_gone(path: Path) -> None:
    with connect(path) as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: d\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        read_head(sock.makefile("rb"))
        assert not closed.wait(0.2)  # it only ended its own sending
    assert closed.wait(5)


@pytest.mark.parametrize("upgrade", [True, False])
def test_hijack_hands_over_a_clean_socket(path: Path, upgrade: bool) -> None:
    fields = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""
    with connect(path) as sock:
        sock.sendall(
            b"POST /hijack HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n" + fields + b"\r\n{}early"
        )
        stream = sock.makefile("rb")
        status, answer = read_head(stream)
        assert status == (101 if upgrade else 200)
        assert answer["content-type"] == "application/vnd.docker.raw-stream"
        assert answer.get("upgrade") == ("tcp" if upgrade else None)
        time.sleep(2 * BOUNDS.stall_seconds)  # the server's timeouts are no longer there
        sock.sendall(b"late")
        sock.shutdown(socket.SHUT_WR)
        assert stream.read() == b"earlylate"


def test_slow_heads_and_bodies_end(path: Path) -> None:
    assert exchange(path, b"GET /unread HTT").status == 408
    with connect(path) as sock:
        begun = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"GET /unread HTTP/1.1\r\nX: " + b"y" * 1000:
                sock.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - begun < 5
    head = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\nabc"
    assert exchange(path, head).status == 408


def test_idle_connections_end(path: Path) -> None:
    with connect(path) as sock:
        assert sock.recv(1) == b""


@pytest.mark.parametrize("cut", range(0, 75, 5))
def test_a_client_that_goes_away_harms_nobody(path: Path, cut: int) -> None:
    data = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 20\r\n\r\n01234567890123456789"
    with connect(path) as sock:
        sock.sendall(data[:cut])
    assert call(path, "GET", "/unread").status == 200


def test_query_and_percent_encoding(path: Path) -> None:
    got = call(path, "GET", "/query?a=1&a=2&b=&c=%2Fx+y&d")
    assert got.json == {"a": ["1", "2"], "b": [""], "c": ["/x y"], "d": [""]}
    assert call(path, "GET", "/query?" + "&".join(["a=1"] * 300)).status == 400
    assert call(path, "GET", "/unre%61d").status == 200


def test_many_connections_at_once(path: Path) -> None:
    results: list[int] = []

    def ask() -> None:
        with connect(path) as sock:
            stream = sock.makefile("rb")
            for _ in range(20):
                sock.sendall(b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\nabc")
                results.append(read_answer(stream).status)

    threads = [threading.Thread(target=ask) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [200] * 1200


def test_too_many_connections_are_told(path: Path) -> None:
    with served(application, Bounds(connections=2)) as small:
        with connect(small) as first, connect(small) as second:
            for sock in (first, second):
                sock.sendall(b"GET /unread HTTP/1.1\r\nHost: d\r\n\r\n")
                assert read_answer(sock.makefile("rb")).status == 200
            with connect(small) as third:
                assert read_answer(third.makefile("rb")).status == 503
        assert _eventually_served(small)


def _eventually_served(path: Path) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(BrokenPipeError):
            if call(path, "GET", "/unread").status == 200:
                return True
    return False


def test_random_bytes_never_kill_the_server(path: Path) -> None:
    draw = random.Random(7)
    parts = b"GET |/echo| HTTP/1.1\r\n|Host: d\r\n|\r\n|Content-Length: 5\r\n|5\r\n|hello".split(
        b"|"
    )
    parts += [b"Transfer-Encoding: chunked\r\n", b"Upgrade: tcp\r\n", b"\x00", b"\xff"]
    for _ in range(300):
        with connect(path) as sock:
            sock.sendall(b"".join(draw.choice(parts) for _ in range(draw.randint(1, 12))))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    assert call(path, "GET", "/unread").status == 200


def test_chunks_reader_of_this_suite() -> None:
    import io

    assert list(read_chunks(io.BytesIO(b"1\r\na\r\n0\r\n\r\n"))) == [b"a"]
