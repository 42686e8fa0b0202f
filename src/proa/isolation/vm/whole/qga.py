"""A client of the QEMU guest agent, as many systems have it: bounded, and wary of what it says.

The protocol is QEMU's "Guest Agent Protocol Reference": JSON lines over a virtio-serial port, which
keeps what nobody read; `guest-sync-delimited` finds the place where our answers begin.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from proa.errors import Conflict, IsolationError, ProaError, Timeout, Unsupported
from proa.printable import clean

PORT = "org.qemu.guest_agent.0"
ANSWER_SECONDS = 10.0
FREEZE_SECONDS = 30.0
LINE_MAXIMUM = 48 << 20  # `capture-output` gives 16 MiB of each stream, in base64
PIECE_BYTES = 1 << 20  # of a file, in one message
POLL_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2)
_DELIMITER = b"\xff"
_INTERFACES_MAXIMUM = 256


@dataclass(frozen=True)
class Ended:
    """How a command ended: `code` is 128+signal when a signal did it."""

    code: int
    output: bytes
    errors: bytes
    cut: bool  # there was more than the agent keeps


@dataclass(frozen=True)
class Interface:
    """One network card as the guest has it; addresses with their prefix."""

    name: str
    mac: str
    addresses: tuple[str, ...]


class Qga:
    """One connection to the port; commands are given one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._synchronised = False

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def call(
        self, command: str, arguments: Mapping[str, Any] | None = None, seconds: float | None = None
    ) -> Any:
        """Give a command; its `return`.  Raises Timeout, Unsupported or IsolationError."""
        end = time.monotonic() + (ANSWER_SECONDS if seconds is None else seconds)
        with self._lock:
            try:
                if not self._synchronised:
                    self._synchronise(end)
                self._send(command, arguments, end)
                answer = self._line(end)
            except ProaError:
                self._synchronised = False
                raise
        return _result(command, answer)

    def tell(self, command: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Give a command that has no answer when it succeeds."""
        end = time.monotonic() + ANSWER_SECONDS
        with self._lock:
            self._synchronise(end)
            self._synchronised = False
            self._send(command, arguments, end)

    # -- what it can do ---------------------------------------------------------------------------

    def ping(self, seconds: float = 2.0) -> bool:
        """Whether somebody answers."""
        try:
            self.call("guest-ping", None, seconds)
        except ProaError:
            return False
        return True

    def commands(self) -> frozenset[str]:
        """The commands it allows."""
        known = _table(self.call("guest-info")).get("supported_commands")
        rows = known if isinstance(known, list) else []
        return frozenset(
            str(row.get("name"))
            for row in rows[:1000]
            if isinstance(row, dict) and row.get("enabled") is True
        )

    def system(self) -> str:
        """The system's kind by its `id` of os-release, like "debian" or "mswindows"."""
        return _text(_table(self.call("guest-get-osinfo")).get("id"))

    def run(
        self,
        arguments: Iterable[str],
        environment: Iterable[str] = (),
        stdin: bytes = b"",
        seconds: float = 60.0,
    ) -> Ended:
        """Run a command to its end.  Raises Timeout; the command then runs on."""
        return self.wait(self.begin(arguments, environment, stdin), seconds)

    def begin(
        self, arguments: Iterable[str], environment: Iterable[str] = (), stdin: bytes = b""
    ) -> int:
        """Start a command; its pid.  There is no terminal, and stdin is all given now."""
        program, *rest = arguments
        wanted: dict[str, Any] = {"path": program, "arg": rest, "capture-output": True}
        if environment:
            wanted["env"] = list(environment)
        if stdin:
            wanted["input-data"] = base64.b64encode(stdin).decode()
        return _number(_table(self.call("guest-exec", wanted)).get("pid"))

    def wait(self, pid: int, seconds: float | None = None) -> Ended:
        """Wait until a command has ended.  Raises Timeout."""
        end = None if seconds is None else time.monotonic() + seconds
        pause = iter(POLL_SECONDS)
        while True:
            status = _table(self.call("guest-exec-status", {"pid": pid}))
            if status.get("exited") is True:
                return _ended(status)
            if end is not None and time.monotonic() > end:
                raise Timeout(f"the command did not end within {seconds:g} seconds")
            time.sleep(next(pause, POLL_SECONDS[-1]))

    def read_file(self, path: str, maximum: int) -> Iterator[bytes]:
        """A file's content in pieces.  Raises Conflict when it has more than `maximum` bytes."""
        with self._open(path, "r") as handle:
            got = 0
            while True:
                wanted = {"handle": handle, "count": PIECE_BYTES}
                answer = _table(self.call("guest-file-read", wanted))
                piece = _bytes(answer.get("buf-b64"))
                got += len(piece)
                if len(piece) > PIECE_BYTES or got > maximum:
                    raise Conflict(f"the file '{path}' has more than '{maximum}' bytes")
                yield piece
                if answer.get("eof") is True or not piece:
                    return

    def write_file(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write a file anew."""
        with self._open(path, "w") as handle:
            for piece in pieces:
                for start in range(0, len(piece), PIECE_BYTES):
                    part = base64.b64encode(piece[start : start + PIECE_BYTES]).decode()
                    self.call("guest-file-write", {"handle": handle, "buf-b64": part})

    @contextmanager
    def _open(self, path: str, mode: str) -> Iterator[int]:
        handle = _number(self.call("guest-file-open", {"path": path, "mode": mode}))
        try:
            yield handle
        finally:
            with suppress(ProaError):
                self.call("guest-file-close", {"handle": handle})

    def shutdown(self, mode: str = "powerdown") -> None:
        """Ask the system to end: "powerdown", "reboot" or "halt"."""
        self.tell("guest-shutdown", {"mode": mode})

    @contextmanager
    def frozen(self) -> Iterator[int]:
        """The guest's file systems flushed and frozen meanwhile; how many.

        They are thawed whatever happens, also when freezing itself was not answered in time.
        """
        try:
            count = _number(self.call("guest-fsfreeze-freeze", None, FREEZE_SECONDS))
            yield count
        finally:
            self.call("guest-fsfreeze-thaw", None, FREEZE_SECONDS)

    def interfaces(self) -> list[Interface]:
        """The guest's network cards."""
        rows = self.call("guest-network-get-interfaces")
        if not isinstance(rows, list):
            raise IsolationError("the guest agent lists no interfaces")
        return [_interface(_table(row)) for row in rows[:_INTERFACES_MAXIMUM]]

    def set_time(self, now_ns: int) -> None:
        """Set the guest's clock."""
        self.call("guest-set-time", {"time": now_ns})

    # -- the wire ---------------------------------------------------------------------------------

    def _synchronise(self, end: float) -> None:
        """Pass over whatever was left of earlier conversations."""
        number = secrets.randbits(48)
        self._buffer.clear()
        self._write(_DELIMITER + _command("guest-sync-delimited", {"id": number}), end)
        while True:
            self._until(_DELIMITER, end)
            with suppress(IsolationError):
                last = self._line(end).rpartition(_DELIMITER)[2]
                if _result("guest-sync-delimited", last) == number:
                    break
        self._synchronised = True

    def _send(self, command: str, arguments: Mapping[str, Any] | None, end: float) -> None:
        self._write(_command(command, arguments), end)

    def _write(self, data: bytes, end: float) -> None:
        try:
            self._socket.settimeout(_left(end))
            self._socket.sendall(data)
        except TimeoutError:
            raise _silent() from None
        except OSError as error:
            raise IsolationError(f"the guest agent's port is gone: {error.strerror}") from error

    def _line(self, end: float) -> bytes:
        return self._until(b"\n", end)

    def _until(self, mark: bytes, end: float) -> bytes:
        """What comes before the mark, which is taken too; more than is bearable is an error."""
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            searched = len(self._buffer)
            if searched > LINE_MAXIMUM:
                self._buffer.clear()
                raise IsolationError("the guest agent's answer is too long")
            self._buffer += self._receive(end)
        taken = bytes(self._buffer[:found])
        del self._buffer[: found + 1]
        return taken

    def _receive(self, end: float) -> bytes:
        try:
            self._socket.settimeout(_left(end))
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise _silent() from None
        except OSError as error:
            raise IsolationError(f"the guest agent's port is gone: {error.strerror}") from error
        if not data:
            raise IsolationError("the guest agent's port is gone")
        return data


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise _silent()
    return left


def _silent() -> Timeout:
    return Timeout("the guest agent does not answer", hint="is 'qemu-guest-agent' installed there?")


def _command(name: str, arguments: Mapping[str, Any] | None) -> bytes:
    wanted: dict[str, Any] = {"execute": name}
    if arguments:
        wanted["arguments"] = dict(arguments)
    return json.dumps(wanted).encode() + b"\n"


def _result(command: str, line: bytes) -> Any:
    """The `return` of an answer.  Raises Unsupported for a command it does not have or allow."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise IsolationError(f"the guest agent's answer to '{command}' is malformed") from None
    table = _table(answer)
    if "return" in table:
        return table["return"]
    error = _table(table.get("error"))
    reason = clean(_text(error.get("desc"))) or "no reason given"
    if error.get("class") in ("CommandNotFound", "CommandDisabled"):
        raise Unsupported(f"the guest agent does not do '{command}': {reason}")
    raise IsolationError(f"the guest agent failed at '{command}': {reason}")


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise IsolationError("the guest agent's answer is malformed")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise IsolationError("the guest agent's answer is malformed")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        raise IsolationError("the guest agent's answer is malformed") from None


def _ended(status: dict[str, Any]) -> Ended:
    by = status.get("signal")
    code = 128 + _number(by) % 128 if by is not None else _number(status.get("exitcode", 0))
    cut = status.get("out-truncated") is True or status.get("err-truncated") is True
    return Ended(code & 0xFF, _bytes(status.get("out-data")), _bytes(status.get("err-data")), cut)


def _interface(row: dict[str, Any]) -> Interface:
    listed = row.get("ip-addresses")
    rows = listed if isinstance(listed, list) else []
    addresses = []
    for item in rows[:_INTERFACES_MAXIMUM]:
        known = _table(item)
        addresses.append(
            f"{clean(_text(known.get('ip-address')), 64)}/{_number(known.get('prefix'))}"
        )
    name, mac = _text(row.get("name")), _text(row.get("hardware-address"))
    return Interface(clean(name, 64), clean(mac, 32), tuple(addresses))
