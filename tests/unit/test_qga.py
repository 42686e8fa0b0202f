"""The guest agent's client against guests that answer well, late, wrongly, or with malice."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.errors import Conflict, IsolationError, ProaError, Timeout, Unsupported
from proa.isolation.vm.whole import qga

Answer = Callable[[str, dict[str, Any]], bytes]


def _serve(guest: socket.socket, answer: Answer, before: bytes) -> None:
    with guest, guest.makefile("rb") as lines:
        try:
            guest.sendall(before)
            for line in lines:
                request = json.loads(line.lstrip(b"\xff"))
                arguments = request.get("arguments", {})
                if request["execute"] == "guest-sync-delimited":
                    guest.sendall(
                        b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"
                    )
                else:
                    guest.sendall(answer(request["execute"], arguments))
        except OSError:
            return


@contextmanager
def talking(answer: Answer, before: bytes = b"") -> Iterator[qga.Qga]:
    """A client whose guest answers so."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=_serve, args=(theirs, answer, before))
    thread.start()
    client = qga.Qga(ours)
    try:
        yield client
    finally:
        ours.shutdown(socket.SHUT_RDWR)
        client.close()
        thread.join()


def returning(value: Any) -> Answer:
    """A guest that answers everything with this."""
    return lambda command, arguments: json.dumps({"return": value}).encode() + b"\n"


@pytest.mark.parametrize(
    "left", [b"", b'{"return": {}}\n', b"\xff", b"\xff{", b"\xffnothing\n", b'{"return": 1}\n' * 99]
)
def test_what_an_earlier_conversation_left_is_passed_over(left: bytes) -> None:
    with talking(returning({"id": "debian"}), left) as client:
        assert client.system() == "debian"


def test_a_command_ends_with_its_output() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def answer(command: str, arguments: dict[str, Any]) -> bytes:
        asked.append((command, arguments))
        ended = {"exited": True, "exitcode": 3, "out-data": base64.b64encode(b"out").decode()}
        known = {"guest-exec": {"pid": 7}, "guest-exec-status": ended}
        return json.dumps({"return": known[command]}).encode() + b"\n"

    with talking(answer) as client:
        assert client.run(["/bin/sh", "-c", "x"], ["A=b"], b"in") == qga.Ended(
            3, b"out", b"", False
        )
    assert asked[0][1] == {
        "path": "/bin/sh", "arg": ["-c", "x"], "capture-output": True, "env": ["A=b"],
        "input-data": base64.b64encode(b"in").decode(),
    }  # fmt: skip


def test_a_command_ended_by_a_signal() -> None:
    with talking(returning({"exited": True, "signal": 9})) as client:
        assert client.wait(1).code == 137


def test_silence_is_a_timeout() -> None:
    with talking(lambda command, arguments: b"") as client, pytest.raises(Timeout):
        client.call("guest-ping", None, 0.2)


def test_after_a_timeout_late_answers_are_not_taken_for_new_ones() -> None:
    answers = iter([b"", b'{"return": "late"}\n{"return": "right"}\n'])
    with talking(lambda command, arguments: next(answers)) as client:
        with pytest.raises(Timeout):
            client.call("guest-ping", None, 0.2)
        assert client.call("guest-ping") == "late"


def test_what_the_agent_does_not_allow_is_unsupported() -> None:
    error = {"error": {"class": "CommandNotFound", "desc": "no \x1b[2J such"}}
    line = json.dumps(error).encode() + b"\n"
    with talking(lambda command, arguments: line) as client, pytest.raises(Unsupported) as raised:
        client.call("guest-exec")
    assert "\x1b" not in str(raised.value)


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qga, "LINE_MAXIMUM", 1 << 20)
    endless = b"x" * (3 << 20)
    with talking(lambda command, arguments: endless) as client, pytest.raises(IsolationError):
        client.call("guest-info")


def test_a_file_without_end_is_refused() -> None:
    piece = {"count": 4096, "buf-b64": base64.b64encode(b"x" * 4096).decode(), "eof": False}

    def answer(command: str, arguments: dict[str, Any]) -> bytes:
        value: Any = piece if command == "guest-file-read" else 1
        return json.dumps({"return": value}).encode() + b"\n"

    with talking(answer) as client, pytest.raises(Conflict):
        sum(map(len, client.read_file("/dev/zero", 1 << 20)))


def test_frozen_file_systems_are_thawed_whatever_happens() -> None:
    asked: list[str] = []

    def answer(command: str, arguments: dict[str, Any]) -> bytes:
        asked.append(command)
        return b'{"return": 2}\n'

    with talking(answer) as client, pytest.raises(KeyError), client.frozen() as count:
        assert count == 2
        raise KeyError
    assert asked == ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(
            ["pid", "exited", "exitcode", "signal", "out-data", "buf-b64", "eof", "name", "id",
             "ip-addresses", "ip-address", "prefix", "supported_commands", "enabled"]), inner)
    ),
    max_leaves=12,
)  # fmt: skip
_LINES = st.one_of(
    st.builds(lambda value: json.dumps({"return": value}).encode(), _JSON),
    st.builds(lambda value: json.dumps({"error": value}).encode(), _JSON),
    st.builds(lambda value: json.dumps(value).encode(), _JSON),
    st.binary(max_size=200).map(lambda raw: raw.replace(b"\n", b"")),
    st.just(b"[" * 100_000),
)
_CALLS: list[Callable[[qga.Qga], object]] = [
    lambda client: client.commands(),
    lambda client: client.system(),
    lambda client: client.interfaces(),
    lambda client: client.run(["true"], seconds=0),
    lambda client: list(client.read_file("/x", 100)),
    lambda client: client.write_file("/x", [b"y"]),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(_LINES, min_size=1, max_size=4), st.sampled_from(_CALLS))
def test_whatever_a_guest_answers_the_worst_is_a_typed_error(
    lines: list[bytes], call: Callable[[qga.Qga], object]
) -> None:
    answers = iter(lines)
    with talking(lambda command, arguments: next(answers, b"{}") + b"\n") as client:
        try:
            call(client)
        except ProaError as error:
            assert str(error)
