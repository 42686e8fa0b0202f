"""What comes back from an instance is checked; figures are found in what load generators print."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from proa.compare import answers, load, readiness, work
from proa.compare.probe import Probe
from proa.errors import Corrupt, HostError, NotFound, Timeout, Unsupported

STEPS = 1 << 16


class Liar:
    """Answers what it was told to, after the time a sample takes."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def ask(self, *words: str) -> list[answers.Line]:
        time.sleep(0.012)
        return answers.read(json.dumps({"probe": words[1]} | self.said).encode())


def said(**different: Any) -> Probe:
    honest = {
        "done": STEPS, "seconds": 0.01, "rate": STEPS / 0.01, "overhead_seconds": 0.0001,
        "result": str(work.steps(STEPS)),
    }  # fmt: skip
    return cast(Probe, Liar(**(honest | different)))


def test_a_sample_and_what_measuring_took_of_it() -> None:
    taken = work.take(said(), "cpu", ms=10)
    assert taken.value == STEPS / 0.01
    assert taken.overhead == pytest.approx(taken.value * 0.01)


@pytest.mark.parametrize("lie", [
    {"result": "1"}, {"result": None}, {"rate": 1e30}, {"rate": -1.0}, {"done": True},
    {"seconds": 100.0, "rate": STEPS / 100}, {"seconds": 1e-9, "rate": STEPS / 1e-9},
    {"seconds": "soon"}, {"overhead_seconds": None},
])  # fmt: skip
def test_figures_that_cannot_be_are_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(Corrupt):
        work.take(said(**lie), "cpu", ms=10)


def test_synced_writes_that_were_not_synced_are_refused() -> None:
    with pytest.raises(Corrupt):
        work.take(said(syncs=STEPS - 1), "fsync", ms=10)
    assert work.take(said(syncs=STEPS), "fsync", ms=10).value > 0


def test_reads_out_of_the_cache_are_refused() -> None:
    with pytest.raises(Unsupported, match="cache"):
        work.take(said(resident=0.5), "disk-seq-read", ms=10)


def test_what_an_instance_cannot_do_is_said_with_its_reason() -> None:
    with pytest.raises(Unsupported, match=r"no directory .* \(EROFS\)"):
        work.take(said(error="x", detail="no directory here", errno="EROFS"), "fsync", ms=10)
    with pytest.raises(NotFound):
        work.take(said(), "juggling")


def test_every_work_has_all_that_a_report_needs() -> None:
    for name in work.NAMES:
        measure = work.measure(name, {"vm": [work.Taken(1, 0.1, {}), work.Taken(2, 0.3, {})]})
        assert measure.key == f"work.{name}"
        assert measure.title and measure.how and measure.unit
        assert measure.better == ("lower" if measure.unit == "ms" else "higher")
        assert measure.samples == {"vm": (1, 2)}
        assert measure.overhead == pytest.approx(0.2)


@pytest.mark.parametrize("output", [
    b"not json\n", b"[]\n", b"{}\n", b'{"probe":"x","v":NaN}\n', b'{"probe":"x","v":Infinity}\n',
    b'{"probe":"x","v":1e999}\n', b'{"probe":"x","v":' + b"9" * 5000 + b"}\n",
    b'{"probe":"x","v":{"a":1}}\n', b'{"probe":"x","v":[[1]]}\n',
    b'{"probe":"x","v":' + b"[" * 30000 + b"\n", b'{"probe":"x","v":"' + b"a" * 70000 + b'"}\n',
    b'{"probe":"x"}\n' * 5000, b" " * (answers.OUTPUT_MAXIMUM_BYTES + 1),
    b'{"probe":"x",' + b",".join(b'"%d":1' % i for i in range(100)) + b"}\n",
    b'{"probe":"x","v":[' + b"1," * 9000 + b"1]}\n",
])  # fmt: skip
def test_what_no_probe_writes_is_refused(output: bytes) -> None:
    with pytest.raises(Corrupt):
        answers.read(output)


def test_text_of_an_instance_is_made_safe() -> None:
    [line] = answers.read(b'{"probe":"x","v":"a\\u001b[2Jb","list":[1,2.5]}\n\n')
    assert answers.text(line, "v") == "a [2Jb"
    assert answers.numbers(line, "list") == [1, 2.5]
    with pytest.raises(Corrupt):
        answers.numbers(line, "v")


@pytest.mark.parametrize(("text", "value", "unit"), [
    ("  Latency   63us\nRequests/sec: 112225.33\nTransfer/sec:  9.74MB\n", 112225.33, "requests/s"),
    ("Requests per second:    1160.09 [#/sec] (mean)\nTotal: 3\n", 1160.09, "requests/s"),
    ("took 3 tries\n41.5\n", 41.5, "count"),
    ("-2e3", -2000, "count"),
    ("v1.2.3 done", None, "count"),
    ("", None, "count"),
])  # fmt: skip
def test_figures_of_load_generators(text: str, value: float | None, unit: str) -> None:
    assert load.figure(text) == (value, unit)


def test_a_load_of_ones_own() -> None:
    found = load.run('echo "$PROA_FORM at $PROA_TARGET"; echo 42', "10.0.0.2:80", "vm")
    assert (found.value, found.unit) == (42, "count")
    with pytest.raises(HostError, match="no number"):
        load.run("true", "10.0.0.2:80", "vm")
    with pytest.raises(HostError, match="ended with 3 and said 'oh'"):
        load.run("echo oh >&2; exit 3", "10.0.0.2:80", "vm")
    with pytest.raises(Timeout):
        load.run("sleep 60 & sleep 60", "10.0.0.2:80", "vm", timeout_seconds=0.2)


class Fickle(http.server.BaseHTTPRequestHandler):
    """Refuses twice, then is content."""

    asked = 0

    def do_GET(self) -> None:
        Fickle.asked += 1
        self.send_response(503 if Fickle.asked < 3 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def fickle() -> Iterator[int]:
    Fickle.asked = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fickle) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()


def test_the_first_good_reply_is_waited_for(fickle: int) -> None:
    begin = time.monotonic_ns()
    opened = readiness.port_open("127.0.0.1", fickle, 5)
    replied = readiness.first_reply("127.0.0.1", fickle, 5)
    assert begin < opened < replied < time.monotonic_ns()
    assert Fickle.asked == 3


def test_a_port_that_stays_shut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(Timeout):
        readiness.port_open("127.0.0.1", port, 0.05)
    with pytest.raises(Timeout, match="no good reply"):
        readiness.first_reply("127.0.0.1", port, 0.05)


@pytest.mark.parametrize("reply", [b"", b"\x1b[2Jhello", b"HTTP/1.1 \xff\r\n\r\n", b"x" * 100000])
def test_replies_that_are_none(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(Timeout) as caught:
            readiness.first_reply("127.0.0.1", listener.getsockname()[1], 0.1)
        assert caught.value.message.isprintable()
        listener.shutdown(socket.SHUT_RDWR)


def test_ones_own_test_of_readiness(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    words = f'test "$PROA_TARGET" = t && test -e {flag} || {{ touch {flag}; echo no >&2; exit 1; }}'
    assert readiness.command(words, 5, {"PROA_TARGET": "t"}) > 0
    with pytest.raises(Timeout, match="it said 'no'"):
        readiness.command("echo no >&2; exit 1", 0.05, {})
