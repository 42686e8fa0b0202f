"""QMP, QEMU's control protocol: a small synchronous client on an inherited socket.

QEMU reads its socket byte by byte, so messages are compact, and requests can be written before it
even runs (`pipeline`); the answers are read afterwards, in order.
"""

from __future__ import annotations

import array
import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from proa.errors import IsolationError, Timeout

Command = tuple[str, dict[str, Any]]
LINE_MAXIMUM = 1 << 20
NAME_MAXIMUM, REASON_MAXIMUM = 256, 4096
TIMEOUT_SECONDS = 10.0
EVENTS_KEPT = 64


def encode(command: Command, identity: int) -> bytes:
    """One request, without spaces."""
    name, arguments = command
    request: dict[str, Any] = {"execute": name, "id": identity}
    if arguments:
        request["arguments"] = arguments
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"


class Qmp:
    """One connection.  Several threads may use it; each exchange is whole.

    Requests are numbered from a random start: answers to a former engine's requests, and the rest
    of a line it read half, are passed over.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._last = secrets.randbits(48)
        self._unread: list[int] = []
        self._events: list[tuple[str, str]] = []  # names, and the devices they are about

    def pipeline(self, *commands: Command) -> None:
        """Write requests now and read their answers with `drain`, or before the next `execute`."""
        with self._lock:
            numbers = [self._number() for _ in commands]
            self._write(b"".join(map(encode, commands, numbers)))
            self._unread += numbers

    def drain(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Read the answers of everything pipelined.  Raises IsolationError at a refusal."""
        with self._lock:
            self._drain(time.monotonic() + timeout_seconds)

    def execute(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        descriptor: int = -1,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Any:
        """One request and its answer; a `descriptor` travels along (`getfd`)."""
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            self._drain(deadline)
            number = self._number()
            self._write(encode((name, arguments or {}), number), descriptor)
            return self._answer(number, deadline)

    def wait_event(self, name: str, timeout_seconds: float, device: str = "") -> None:
        """Wait until this event (about a device by id) has been seen once.  Raises Timeout."""
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            while (name, device) not in self._events:
                self._remember(self._message(deadline))
            self._events.remove((name, device))

    def fileno(self) -> int:
        """Descriptor of the connection, for the monitor to keep."""
        return self._socket.fileno()

    def close(self) -> None:
        """End this side of the connection; QEMU runs on."""
        self._socket.close()

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _drain(self, deadline: float) -> None:
        while self._unread:
            self._answer(self._unread.pop(0), deadline)

    def _answer(self, number: int, deadline: float) -> Any:
        while True:
            message = self._message(deadline)
            if message.get("id") != number:
                self._remember(message)
            elif "error" in message:
                raise IsolationError(f"qemu refused: {_reason(message['error'])}")
            else:
                return message.get("return")

    def _remember(self, message: dict[str, Any]) -> None:
        event, data = message.get("event"), message.get("data")
        if isinstance(event, str) and len(event) <= NAME_MAXIMUM:
            device = data.get("device") if isinstance(data, dict) else ""
            self._events.append((event, device[:NAME_MAXIMUM] if isinstance(device, str) else ""))
            del self._events[:-EVENTS_KEPT]

    def _message(self, deadline: float) -> dict[str, Any]:
        if time.monotonic() > deadline:  # else one that never stops talking would be heard for ever
            raise Timeout("qemu did not answer on its control channel")
        while (end := self._buffer.find(b"\n")) < 0:
            self._fill(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return {}
        return message if isinstance(message, dict) else {}

    def _fill(self, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise Timeout("qemu did not answer on its control channel") from None
        except OSError as error:
            raise IsolationError(f"qemu's control channel failed: {error.strerror}") from error
        if not data or len(self._buffer) > LINE_MAXIMUM:
            raise IsolationError("qemu ended or sent nonsense")
        self._buffer += data

    def _write(self, data: bytes, descriptor: int = -1) -> None:
        ancillary = []
        if descriptor >= 0:
            packed = array.array("i", [descriptor])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]
        self._socket.settimeout(TIMEOUT_SECONDS)
        try:
            sent = self._socket.sendmsg([data], ancillary)
            self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise IsolationError(f"qemu does not listen: {error.strerror}") from error


def _reason(error: object) -> str:
    """QEMU's words, of which nothing is certain: it may be in its guest's hands."""
    words = error.get("desc") if isinstance(error, dict) else None
    return words[:REASON_MAXIMUM] if isinstance(words, str) else "no reason"


@contextlib.contextmanager
def pair() -> Iterator[tuple[Qmp, socket.socket]]:
    """A client and QEMU's end; the end is closed here once QEMU holds its copy."""
    ours, theirs = socket.socketpair()
    with theirs:
        yield Qmp(ours), theirs
