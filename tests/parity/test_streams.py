"""Standard input, output and error, terminals, attach."""

from __future__ import annotations

import hashlib
import os
import socket

from tests.support.http import demultiplex
from tests.support.instances import Place, eventually, exactly, gather, lines


def test_output_and_error_are_kept_apart(place: Place) -> None:
    result = place.run("busy", "sh", "-c", "echo out; echo err >&2; echo out2")
    assert (result.stdout, result.stderr) == ("out\nout2\n", "err\n")


def test_stdin_is_fed_and_closed(place: Place) -> None:
    result = place.run("busy", "sh", "-c", "cat; echo end", stdin=b"one\ntwo\n")
    assert result.stdout == "one\ntwo\nend\n"


def test_without_stdin_a_reader_sees_the_end(place: Place) -> None:
    assert place.run("busy", "sh", "-c", "cat; echo end").stdout == "end\n"


def test_a_megabyte_goes_in_and_out_unchanged(place: Place) -> None:
    data = os.urandom(1 << 20)
    result = place.run("busy", "sh", "-c", "sha256sum | cut -d' ' -f1", stdin=data)
    assert result.stdout.strip() == hashlib.sha256(data).hexdigest()
    text = place.run("busy", "cat", stdin=data.hex().encode())
    assert text.stdout == data.hex()


def test_output_of_many_megabytes_is_complete(place: Place) -> None:
    result = place.run("busy", "sh", "-c", "dd if=/dev/zero bs=64k count=128 2>/dev/null")
    assert len(result.stdout) == 8 << 20


def test_bytes_are_not_text(place: Place) -> None:
    instance = place.create("busy", "printf", r"\377\000\001")
    stream = instance.attach(stdin=0)
    instance.start()
    frame = exactly(stream, 8 + 3)
    assert frame[8:] == b"\xff\x00\x01"


def test_a_terminal_is_one(place: Place) -> None:
    result = place.run(
        "busy", "sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2; echo $?", Tty=True
    )
    name, code = lines(result.stdout)
    assert name.startswith("/dev/pts/")
    assert code == "0"


def test_a_terminal_echoes_and_resizes(place: Place) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do read line && echo got $line; done"
    instance = place.create("busy", "sh", "-c", script, Tty=True, OpenStdin=True)
    with instance.attach() as stream:
        instance.start()
        expect(stream, "ready")
        instance.api.call("POST", f"{instance.path}/resize", h=33, w=111)
        stream.sendall(b"a line\r")  # a shell about to read would run its trap only afterwards
        expect(stream, "33 111")
        stream.sendall(b"hello\r")
        assert "hello\r\n" in expect(stream, "got hello"), "a terminal echoes"


def test_the_interrupt_key_interrupts(place: Place) -> None:
    script = "trap 'exit 8' INT; echo ready; while :; do sleep 0.1; done"
    instance = place.create("busy", "sh", "-c", script, Tty=True, OpenStdin=True)
    with instance.attach() as stream:
        instance.start()
        expect(stream, "ready")
        stream.sendall(b"\x03")
        assert instance.wait() == 8


def test_detach_keys_leave_it_running(place: Place) -> None:
    instance = place.create("busy", "cat", Tty=True, OpenStdin=True)
    with instance.attach() as stream:
        instance.start()
        stream.sendall(b"abc\r")
        expect(stream, "abc")
        stream.sendall(b"\x10\x11")
        while stream.recv(4096):
            pass
    assert instance.state()["Running"]


def test_attach_later_sees_what_comes_later(place: Place) -> None:
    instance = place.start("busy", "cat", OpenStdin=True)
    with instance.attach() as first, instance.attach() as second:
        for name, stream in (("first", first), ("second", second)):
            stream.sendall(name.encode() + b"\n")
            hear(stream, name)  # an attachment is at work once its own bytes come back
        first.sendall(b"to both\n")
        for stream in (first, second):
            hear(stream, "to both")
    assert instance.state()["Running"]


def hear(stream: socket.socket, words: str) -> None:
    """Read frames until `words` have come."""
    text = ""
    for _, data in demultiplex(stream):
        text += data.decode()
        if words in text:
            return
    raise AssertionError(f"the stream ended after {text!r}, without {words!r}")


def test_attach_with_logs_replays(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "echo before; read line; echo after", OpenStdin=True)
    eventually(lambda: instance.logs().stdout == "before\n")
    with instance.attach(logs=1) as stream:
        stream.sendall(b"\n")
        assert gather(stream).stdout == "before\nafter\n"


def test_a_client_that_stops_reading_slows_only_itself(place: Place) -> None:
    instance = place.start(
        "busy", "sh", "-c", "dd if=/dev/zero bs=64k count=64 2>/dev/null; sleep 1000"
    )
    idle = instance.attach(stdin=0)
    assert instance.exec("echo", "still here").stdout == "still here\n"
    idle.close()
    eventually(lambda: len(instance.logs().stdout) == 4 << 20, 20)


def expect(stream: socket.socket, words: str) -> str:
    """Read a terminal until `words` appear."""
    text = ""
    while words not in text:
        piece = stream.recv(4096)
        assert piece, f"the stream ended after {text!r}, without {words!r}"
        text += piece.decode(errors="replace")
    return text
