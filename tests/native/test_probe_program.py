"""proa-probe by itself: its work comes to what it must, and nothing a server says upsets it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proa.compare import answers, work
from tests.support.paths import PROBER

DISK_WORK = ("disk-seq-write", "disk-seq-read", "disk-rand-write", "disk-rand-read", "fsync")


def run(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PROBER, *words], capture_output=True, timeout=60)


def line(*words: str | Path) -> dict[str, Any]:
    done = run(*words)
    assert done.returncode == 0, done
    [answer] = answers.read(done.stdout)
    return dict(answer)


@contextlib.contextmanager
def serving(*words: str) -> Iterator[int]:
    with subprocess.Popen([PROBER, "serve", "port=0", *words], stdout=subprocess.PIPE) as server:
        assert server.stdout
        try:
            yield int(json.loads(server.stdout.readline())["port"])
        finally:
            server.kill()


@contextlib.contextmanager
def saying(reply: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that reads a request and then does as `reply` likes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        while connection.recv(65536):
                            reply(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def load(port: int, *words: str) -> dict[str, Any]:
    return line("load", f"127.0.0.1:{port}", "ms=30", *words)


@pytest.mark.parametrize(
    ("name", "lie"),
    [("cpu", {"result": "7"}), ("cpu-float", {"result": 7}), ("cpu-branches", {"disorder": 1})],
)
def test_arithmetic_is_that_of_as_many_steps_as_claimed(name: str, lie: dict[str, Any]) -> None:
    answer = line("work", name, "ms=20")
    assert answer["done"] > 0
    assert work.PROOFS[name](answer, answer["done"])
    assert not work.PROOFS[name](answer | lie, answer["done"])


@pytest.mark.parametrize("name", DISK_WORK)
def test_disk_work_leaves_no_file(name: str, tmp_path: Path) -> None:
    answer = line("work", name, "ms=10", "size=1m", f"dir={tmp_path}")
    assert answer["done"] > 0
    assert answer["directory"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_nobody_can_write_is_said(tmp_path: Path) -> None:
    done = run("work", "fsync", "ms=10", f"dir={tmp_path / 'none'}")
    [answer] = answers.read(done.stdout)
    assert (done.returncode, answer["error"], answer["errno"]) == (
        1, "no writable directory", "ENOENT",
    )  # fmt: skip


@pytest.mark.parametrize("words", [
    (), ("nothing",), ("work",), ("work", "cpu", "ms"), ("work", "cpu", "ms=0"),
    ("work", "cpu", "ms=1t"), ("work", "cpu", "ms=99999999999999999999"), ("work", "cpu", "pi=3"),
    ("load",), ("load", "example.invalid:80"), ("load", "127.0.0.1:0"),
    ("load", "127.0.0.1:80", "path=/ HTTP/1.1"), ("serve", "port=65536"), ("hold", "memory=-1"),
])  # fmt: skip
def test_wrong_usage(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr


def test_requests_are_counted_on_both_sides() -> None:
    with serving() as port:
        answer = load(port, "connections=3")
        assert answer["bad"] == 0
        assert answer["connects"] == 3
        pairs = answer["histogram"]
        assert (
            sum(pairs[1::2])
            == answer["count"]
            == round(answer["requests_per_second"] * answer["seconds"])
        )
        assert answer["min_ns"] <= answer["p50_ns"] <= answer["p99_ns"] <= answer["max_ns"]


def test_a_stream_cut_by_the_end_counts_its_bytes() -> None:
    with serving() as port:
        answer = load(port, "path=/bytes/1000000000000", "connections=1")
        assert answer["count"] == 0
        assert answer["bytes_per_second"] > 0


def test_an_echo_gives_back_what_it_got() -> None:
    with serving("echo=1") as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"a\0b")
        assert connection.recv(10) == b"a\0b"


@pytest.mark.parametrize(
    ("request_text", "status", "closes"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"200", False),
        (b"GET / HTTP/1.0\r\n\r\n", b"200", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", b"200", False),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404", False),
        (b"\xff\xfe\r\n\r\n", b"400", True),
        (b"GET " + b"/" * 4096, b"", True),
    ],
)
def test_the_server_speaks_http(request_text: bytes, status: bytes, closes: bool) -> None:
    with serving() as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request_text)
        connection.settimeout(5 if closes else 0.5)
        got = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while data := connection.recv(4096):
                got += data
                if not closes and b"\r\n\r\n" in got:
                    break
        assert got[9:12] == status
        if not closes:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("reply", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 302 Found\r\ncontent-length:0\r\n\r\n",
    b"HTTP/1.1 204 None\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    CHUNKED + b"2;x=y\r\nok\r\n0\r\nTrailer: x\r\n\r\n",
])  # fmt: skip
@pytest.mark.parametrize("piece", [1, 1000])
def test_good_replies_in_any_pieces(reply: bytes, piece: int) -> None:
    def say(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(reply), piece):
            connection.sendall(reply[at : at + piece])

    with saying(say) as port:
        answer = load(port, "connections=1")
        assert (answer["bad"], answer["connects"]) == (0, 1)
        assert answer["count"] > 0


@pytest.mark.parametrize("reply", [
    b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nand more",
    b"HTTP/9 what\r\n\r\n",
    b"\0" * 20000,
    b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 4000,
    CHUNKED + b"fffffffffffffffff\r\n",
    CHUNKED + b"-1\r\n",
    CHUNKED + b"2\r\nokay\r\n",
    CHUNKED + b"0" * 20000,
])  # fmt: skip
def test_bad_replies_are_counted_and_survived(reply: bytes) -> None:
    with saying(lambda connection: connection.sendall(reply)) as port:
        answer = load(port, "connections=1")
        assert answer["count"] == 0
        assert answer["bad"] > 0


def test_a_reply_that_ends_with_its_connection() -> None:
    def say(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nbody")
        connection.shutdown(socket.SHUT_RDWR)

    with saying(say) as port:
        answer = load(port, "connections=1")
        assert answer["bad"] == 0
        assert answer["connects"] >= answer["count"] > 0


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    done = run("load", f"127.0.0.1:{port}")
    [answer] = answers.read(done.stdout)
    assert (done.returncode, answer["error"], answer["errno"]) == (
        1, "no connection", "ECONNREFUSED",
    )  # fmt: skip
