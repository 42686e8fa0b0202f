"""A monitor under test and an engine's side of its socket, with a frame codec of their own."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"
BINARY = Path(os.environ.get("PROA_NATIVE", BUILD / "proa-native"))
PATIENCE_SECONDS = 30.0

SETUP, PLACE, LAUNCH, EXEC, ATTACH, SIGNAL, RESIZE, STDIN = range(1, 9)
CLOSE_STDIN, CREDIT, STATE, KILL, GET_FD, QUIT, HOLD, QUIESCE, ADOPT, RESUME = range(9, 19)
DONE, PLACED, STARTED, FAILED, OUTPUT, EXIT, STATUS, HELLO = range(64, 72)
WITH_STDIN, WITH_TTY, WITH_LOG, JOIN, STAY, LOCAL = 1, 2, 4, 8, 16, 0x80
IN, OUT, ERR, MUX, CLOSE, HUP = 1, 2, 4, 8, 16, 32
MAIN = 1

NAMESPACES = ("ns", "user", "pid", "mount", "net", "ipc", "uts", "cgroup")
BASE = 0x40000000 + 7 * 65536
MAP = ("idmap", str(BASE), "65536")


def plan(*steps: Sequence[str]) -> bytes:
    """Encode steps, each a verb with its arguments."""
    strings = [s for verb, *rest in steps for s in (verb, str(len(rest)), *rest)]
    return "".join(s + "\0" for s in strings).encode()


PLACE_PLAN = plan(
    NAMESPACES,
    MAP,
    ("mount", "proc", "proc", "/proc", "nosuid,nodev,noexec", ""),
    ("mount", "devpts", "devpts", "/dev/pts", "nosuid,noexec", "ptmxmode=0666,mode=0620"),
)


def command(*argv: str) -> bytes:
    """A plan that executes a command of the host, which is what these places show."""
    return plan(("env", "PATH=/usr/bin:/bin"), ("exec", *argv))


def shell(script: str) -> bytes:
    return command("/bin/sh", "-c", script)


@dataclass(frozen=True)
class Frame:
    type: int
    flags: int
    argument: int
    id: int
    payload: bytes

    @property
    def number(self) -> int:
        return int(struct.unpack_from("<I", self.payload)[0])

    @property
    def exit(self) -> tuple[int, int]:
        """Code and signal of an EXIT."""
        code, signal, _ = struct.unpack("<IIQ", self.payload)
        return code, signal

    @property
    def failure(self) -> tuple[int, int, str, str]:
        """Step, errno, verb and argument of a FAILED."""
        step, error = struct.unpack_from("<II", self.payload)
        verb, argument, _ = self.payload[8:].split(b"\0")
        return step, error, verb.decode(), argument.decode()


def header(kind: int, id: int, payload: bytes, flags: int = 0, argument: int = 0) -> bytes:
    return struct.pack("<IBBHI", len(payload), kind, flags, argument, id)


class Connection:
    """One engine's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_SECONDS)

    def send(
        self, kind: int, id: int = MAIN, payload: bytes = b"", *, flags: int = 0, argument: int = 0
    ) -> None:
        self.sock.sendall(header(kind, id, payload, flags, argument) + payload)

    def send_with(
        self, fds: Sequence[int], kind: int, id: int = MAIN, payload: bytes = b"", *, flags: int = 0
    ) -> None:
        """Send a frame with descriptors."""
        data = header(kind, id, payload, flags) + payload
        sent = socket.send_fds(self.sock, [data], list(fds))
        if sent < len(data):  # else: the process, and the monitor, may have ended already
            self.sock.sendall(data[sent:])

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.sock.recv(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def receive(self) -> Frame:
        length, kind, flags, argument, id = struct.unpack("<IBBHI", self._read(12))
        return Frame(kind, flags, argument, id, self._read(length))

    def expect(self, kind: int, id: int = MAIN) -> Frame:
        frame = self.receive()
        assert (frame.type, frame.id) == (kind, id), frame
        return frame

    def ended(self) -> bool:
        """The monitor closed the connection and says nothing more."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def attach(self, flags: int = OUT | ERR, id: int = MAIN, keys: bytes = b"") -> socket.socket:
        """A client's side of a new sink."""
        ours, theirs = socket.socketpair()
        self.send_with([theirs.fileno()], ATTACH, id, keys, flags=flags)
        theirs.close()
        assert self.expect(DONE, id).argument == ATTACH
        ours.settimeout(PATIENCE_SECONDS)
        return ours

    def place(self, steps: bytes = PLACE_PLAN, fds: Sequence[int] = ()) -> int:
        self.send_with(fds, PLACE, payload=steps)
        return self.expect(PLACED).number

    def launch(self, steps: bytes, flags: int = 0) -> int:
        self.send(LAUNCH, payload=steps, flags=flags)
        return self.expect(STARTED).number

    def exec(self, id: int, steps: bytes, flags: int = JOIN) -> int:
        self.send(EXEC, id, steps, flags=flags)
        return self.expect(STARTED, id).number


class Monitor:
    """A monitor process with its directory; ended, at the latest, by its exit from the context."""

    def __init__(
        self,
        *,
        channel: socket.socket | None = None,
        keep: Sequence[int] = (),
        directory: Path | None = None,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="proa-native-")
        self.path = Path(self._temporary.name) / "sock"
        self.directory = directory or self.path.parent
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        opened = os.open(self.directory, os.O_RDONLY)
        extra = [("--channel", channel.fileno())] if channel else []
        options = [("--listen", listener.fileno()), ("--directory", opened), *extra]
        options += [("--keep", fd) for fd in keep]
        self.process = subprocess.Popen(
            [BINARY, "monitor", *(str(word) for pair in options for word in pair)],
            pass_fds=[fd for _, fd in options],
        )
        listener.close()
        os.close(opened)
        if channel:
            channel.close()

    def connect(self) -> Connection:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        return Connection(sock)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    @property
    def record(self) -> dict[str, str]:
        lines = (self.directory / "exit").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def log(self) -> list[tuple[int, bytes]]:
        data, records = (self.directory / "log").read_bytes(), []
        while data:
            _, length, stream, zero = struct.unpack_from("<QIB3s", data)
            assert zero == b"\0\0\0"
            records.append((stream, data[16 : 16 + length]))
            data = data[16 + length :]
        return records

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._temporary.cleanup()


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of file."""
    parts = []
    while piece := sock.recv(1 << 16):
        parts.append(piece)
    return b"".join(parts)


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        piece = sock.recv(1 << 16)
        assert piece, data
        data += piece
    return data


def gone(pid: int) -> bool:
    """Wait for the end of any process."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_SECONDS)[0])
    finally:
        os.close(descriptor)
