"""Fuzz the frames of a guest: a real monitor behind which the virtual machine says anything.

The first byte of an input chooses what the monitor has been asked before: an image's program in
the guest, a QEMU that is itself the main process, a guest that shall stand still, a copy that is
to be adopted.  Whatever the guest says, the monitor answers
its engine, needs little memory, and ends when it is told to, cleanly (`PROA_NATIVE` names the
sanitized build in `make sanitize`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
import time
from pathlib import Path

from tests.fuzz.harness import Target, main
from tests.native.monitor import (
    ADOPT,
    BASE,
    DONE,
    ERR,
    EXEC,
    EXIT,
    FAILED,
    HELLO,
    IN,
    JOIN,
    KILL,
    LAUNCH,
    LOCAL,
    MAIN,
    MUX,
    NAMESPACES,
    OUT,
    OUTPUT,
    PLACE,
    PLACED,
    QUIESCE,
    SETUP,
    STARTED,
    STATE,
    STATUS,
    WITH_LOG,
    WITH_STDIN,
    Connection,
    Monitor,
    command,
    header,
    plan,
)

os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")

REQUEST = 2
PROGRAM, WHOLE, STILL, COPY = (bytes([number]) for number in range(4))
RESIDENT_MAXIMUM_KIB = 16 << 10
STUCK_SECONDS = 0.2
SANITIZED = "asan" in os.environ.get("PROA_NATIVE", "")
NUMBER, ENDED = struct.pack("<I", 5), struct.pack("<IIQ", 3, 0, 1)
LISTED = struct.pack("<IIIQ", 100, 0, 0, 0)
FAILURE = struct.pack("<II", 0, 2) + b"exec\0/x\0"
ANSWERS = (
    (HELLO, 0, b"proa 1", 0, 0), (DONE, 0, b"", 0, SETUP), (PLACED, MAIN, NUMBER, 0, 0),
    (STARTED, MAIN, NUMBER, 0, 0), (STARTED, 2, NUMBER, 0, 0),
    (OUTPUT, MAIN, b"words\n", 1, 0), (OUTPUT, 2, bytes(9000), 2, 0), (10, 2, NUMBER, 0, 0),
    (STATUS, 2, ENDED, 0, 2), (EXIT, 2, ENDED, 0, 0), (FAILED, 3, FAILURE, 0, EXEC),
    (DONE, 0, b"", 0, QUIESCE), (STATUS, MAIN, LISTED, 0, 2), (STATUS, 5, LISTED, 0, 2),
    (DONE, 0, b"", 0, ADOPT), (EXIT, MAIN, ENDED, 1, 0),
)  # fmt: skip


def frame(kind: int, id: int, payload: bytes, flags: int = 0, argument: int = 0) -> bytes:
    """One frame as the guest's init writes it."""
    return header(kind, id, payload, flags, argument) + payload


TALK = tuple(frame(*answer) for answer in ANSWERS)
WORDS = (
    *TALK, *(frame(kind, id, NUMBER) for kind in (*range(1, 24), *range(64, 80), 255)
             for id in (0, 1, 2)),
    frame(HELLO, 0, b""), frame(OUTPUT, MAIN, bytes(32 << 10), 1), struct.pack("<I", 65536),
    struct.pack("<I", 65537), struct.pack("<I", 0xFFFFFFFF), struct.pack("<I", 0x7FFFFFFF),
)  # fmt: skip
SEEDS = [
    mode + b"".join(TALK[first:last])
    for mode in (PROGRAM, WHOLE, STILL, COPY)
    for first, last in ((0, 1), (0, 4), (0, 9), (0, 16), (11, 16), (12, 15))
]


def check(data: bytes) -> object:
    """One life of a monitor with this guest; what the engine heard."""
    ours, theirs = socket.socketpair()
    with ours, Monitor(channel=theirs) as monitor:
        engine = monitor.connect()
        with contextlib.ExitStack() as clients:
            _ask(engine, clients, data[:1])
            _heard(engine)  # so that everything is asked before anything is said
            ours.settimeout(5)
            with contextlib.suppress(OSError):  # the monitor hung up on it
                ours.sendall(data[1:])
                _read_up(ours)
            heard = _heard(engine)
            resident = _resident_kib(monitor.process.pid)
            assert SANITIZED or resident < RESIDENT_MAXIMUM_KIB, f"{resident} KiB"
            with contextlib.suppress(OSError):
                engine.send(KILL)
            assert monitor.wait() == 0, f"the monitor ended with {monitor.process.returncode}"
        return frozenset(heard), _error(monitor.directory / "exit")


def _ask(engine: Connection, clients: contextlib.ExitStack, mode: bytes) -> None:
    """What an engine asks at a start, all at once; clients read nothing."""
    if mode == COPY:
        engine.send(ADOPT, 0, flags=WITH_LOG)
        return
    if mode == WHOLE:
        engine.send(PLACE, MAIN, plan(NAMESPACES, ("idmap", str(BASE), "65536")), flags=LOCAL)
        engine.expect(PLACED)
    clients.enter_context(engine.attach(IN | OUT | ERR | MUX))
    clients.enter_context(engine.attach(OUT, REQUEST))
    if mode == WHOLE:
        engine.send(LAUNCH, MAIN, command("sleep", "1000"), flags=LOCAL)
        engine.expect(STARTED)
    else:
        engine.send(SETUP, 0, b"setup")
        engine.send(PLACE, MAIN, b"place")
        engine.send(LAUNCH, MAIN, b"plan", flags=WITH_STDIN | WITH_LOG)
    engine.send(EXEC, REQUEST, b"plan", flags=JOIN | WITH_STDIN)
    engine.send(EXEC, REQUEST + 1, b"plan")
    if mode == STILL:
        engine.send(QUIESCE, 0)


def _read_up(channel: socket.socket) -> None:
    """Until the monitor has read all of it, or reads no more."""
    end, left = time.monotonic() + STUCK_SECONDS, -1
    while time.monotonic() < end:
        waiting = bytearray(4)
        fcntl.ioctl(channel, termios.TIOCOUTQ, waiting)
        now = int.from_bytes(waiting, sys.byteorder)
        if now == 0:
            return
        if now != left:
            end, left = time.monotonic() + STUCK_SECONDS, now
        time.sleep(0.0005)


def _heard(engine: Connection) -> set[tuple[int, int, int]]:
    """Everything the engine hears up to the answer of a last question."""
    heard: set[tuple[int, int, int]] = set()
    with contextlib.suppress(OSError):
        engine.send(STATE, 0)
    with contextlib.suppress(EOFError, OSError):
        while True:
            got = engine.receive()
            heard.add((got.type, min(got.id, 9), got.argument))
            if (got.type, got.argument) == (DONE, STATE):
                break
    return heard


def _resident_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _error(record: Path) -> str:
    return record.read_text().rpartition("error=")[2] if record.exists() else ""


TARGET = Target("guest", check, SEEDS, WORDS)

if __name__ == "__main__":
    main(TARGET)
