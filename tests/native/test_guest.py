"""The monitor of a vm: a hull of its own, and a guest behind a channel that is never trusted."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.native.monitor import (
    BASE,
    CLOSE,
    CLOSE_STDIN,
    CREDIT,
    DONE,
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
    NAMESPACES,
    OUT,
    OUTPUT,
    PLACE,
    PLACED,
    QUIT,
    RESIZE,
    SETUP,
    SIGNAL,
    STARTED,
    STATE,
    STATUS,
    STAY,
    STDIN,
    WITH_LOG,
    WITH_STDIN,
    Connection,
    Monitor,
    gone,
    plan,
    read_all,
    read_until,
    shell,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")

HULL = 0
WINDOW, DRAIN = 256 << 10, 2 << 20
CHUNK = bytes(32 << 10)


@dataclass
class Machine:
    """A monitor, its engine, and the guest's end of its channel, spoken by the test."""

    monitor: Monitor
    engine: Connection
    guest: Connection
    hull: int

    def start(self, flags: int = 0) -> None:
        """Let the guest say that the main process runs."""
        self.engine.send(LAUNCH, payload=b"plan", flags=flags)
        assert self.guest.expect(LAUNCH).payload == b"plan"
        self.guest.send(STARTED, payload=struct.pack("<I", 5))
        assert self.engine.expect(STARTED).number == 5

    def finish(self, code: int = 0) -> None:
        self.guest.send(EXIT, payload=struct.pack("<IIQ", code, 0, 1))


@pytest.fixture
def machine() -> Iterator[Machine]:
    ours, theirs = socket.socketpair()
    with Monitor(channel=theirs) as monitor:
        engine = monitor.connect()
        engine.send(PLACE, HULL, plan(NAMESPACES, ("idmap", str(BASE), "65536")), flags=LOCAL)
        hull = engine.expect(PLACED, HULL).number
        speech = engine.attach(OUT, HULL)
        engine.send(LAUNCH, HULL, shell("echo hull speaks; exec sleep 1000"), flags=LOCAL)
        engine.expect(STARTED, HULL)
        assert read_until(speech, b"\n") == b"hull speaks\n"
        speech.close()
        yield Machine(monitor, engine, Connection(ours), hull)


def ended(machine: Machine, code: int, error: str = "") -> None:
    """The monitor has gone with its hull and left this record."""
    assert machine.monitor.wait() == 0 and gone(machine.hull)
    record = machine.monitor.record
    assert (record["code"], record["error"]) == (str(code), error)


def test_a_whole_life(machine: Machine) -> None:
    engine, guest = machine.engine, machine.guest
    guest.send(HELLO, 0, b"proa 1")
    assert engine.expect(HELLO, 0).payload == b"proa 1"
    engine.send(SETUP, HULL, b"setup")
    assert guest.expect(SETUP, HULL).payload == b"setup"
    guest.send(DONE, HULL, argument=SETUP)
    engine.expect(DONE, HULL)
    engine.send(PLACE, payload=b"place")
    guest.expect(PLACE)
    guest.send(PLACED, payload=struct.pack("<I", 4))
    assert engine.expect(PLACED).number == 4
    client = engine.attach(IN | OUT | CLOSE)
    machine.start(WITH_STDIN | WITH_LOG)
    client.sendall(b"input")
    client.shutdown(socket.SHUT_WR)
    assert guest.expect(STDIN).payload == b"input"
    guest.expect(CLOSE_STDIN)
    engine.send(RESIZE, payload=struct.pack("<HH", 1, 2))
    assert guest.expect(RESIZE).payload == struct.pack("<HH", 1, 2)
    engine.send(SIGNAL, argument=15)
    assert guest.expect(SIGNAL).argument == 15
    guest.send(OUTPUT, payload=b"output", flags=1)
    machine.finish(9)
    assert read_all(client) == b"output"
    assert engine.expect(EXIT).exit == (9, 0)
    assert engine.expect(EXIT, HULL).exit == (137, 9)
    ended(machine, 9)
    assert machine.monitor.log == [(1, b"output")]
    assert (machine.monitor.directory / "qemu.log").read_bytes() == b"hull speaks\n"


def test_hull_dies_first(machine: Machine) -> None:
    machine.start()
    machine.engine.send(EXEC, 2, b"plan", flags=JOIN)
    machine.guest.expect(EXEC, 2)
    machine.guest.send(STARTED, 2, struct.pack("<I", 6))
    machine.engine.expect(STARTED, 2)
    os.kill(machine.hull, signal.SIGKILL)
    assert machine.engine.expect(EXIT, 2).exit == (137, 9)
    assert machine.engine.expect(EXIT).exit == (137, 9)
    ended(machine, 137, "the virtual machine ended before its process reported")


def test_last_words_are_heard(machine: Machine) -> None:
    machine.start()
    os.kill(machine.monitor.process.pid, signal.SIGSTOP)
    machine.finish(3)
    machine.guest.sock.close()
    os.kill(machine.hull, signal.SIGKILL)
    os.kill(machine.monitor.process.pid, signal.SIGCONT)
    assert machine.engine.expect(EXIT).exit == (3, 0)
    ended(machine, 3)


def test_a_machine_that_stays_answers_after_its_process(machine: Machine) -> None:
    machine.start(STAY)
    machine.finish(3)
    assert machine.engine.expect(EXIT).exit == (3, 0)
    client = machine.engine.attach(OUT, 2)
    machine.engine.send(EXEC, 2, b"plan")
    machine.guest.expect(EXEC, 2)
    machine.guest.send(STARTED, 2, struct.pack("<I", 6))
    machine.engine.expect(STARTED, 2)
    machine.guest.send(OUTPUT, 2, b"changes", flags=1)
    machine.guest.send(EXIT, 2, struct.pack("<IIQ", 0, 0, 1))
    assert read_all(client) == b"changes"
    machine.engine.send(QUIT, HULL)
    assert machine.monitor.wait() == 0 and gone(machine.hull)
    assert not (machine.monitor.directory / "exit").exists()


def test_a_machine_that_stays_ends_without_an_engine(machine: Machine) -> None:
    machine.start(STAY)
    machine.finish(3)
    machine.engine.expect(EXIT)
    machine.engine.sock.close()
    assert machine.monitor.wait() == 0 and gone(machine.hull)
    assert not (machine.monitor.directory / "exit").exists()


def test_a_machine_that_stays_may_still_die(machine: Machine) -> None:
    machine.start(STAY)
    os.kill(machine.hull, signal.SIGKILL)
    assert machine.engine.expect(EXIT).exit == (137, 9)
    ended(machine, 137, "the virtual machine ended before its process reported")


def test_channel_lost(machine: Machine) -> None:
    machine.start()
    machine.guest.sock.close()
    assert machine.engine.expect(EXIT).exit == (137, 9)
    ended(machine, 137, "the virtual machine ended before its process reported")


def test_kill(machine: Machine) -> None:
    machine.start()
    machine.engine.send(KILL)
    assert machine.engine.expect(EXIT).exit == (137, 9)
    ended(machine, 137)


def test_spare_machine_ends_with_its_engine(machine: Machine) -> None:
    machine.engine.sock.close()
    assert machine.monitor.wait() == 0 and gone(machine.hull)
    assert not (machine.monitor.directory / "exit").exists()


def test_output_beyond_the_credit_kills(machine: Machine) -> None:
    machine.start()
    client = machine.engine.attach(OUT)  # which takes nothing
    with pytest.raises(OSError):
        for _ in range((WINDOW + DRAIN) // len(CHUNK) + 64):
            machine.guest.send(OUTPUT, payload=CHUNK, flags=1)
    assert machine.engine.expect(EXIT).exit == (137, 9)
    assert len(read_all(client)) <= WINDOW + DRAIN + len(CHUNK) + (1 << 20)
    ended(machine, 137, "the virtual machine broke the protocol")


def test_too_long_a_frame_kills(machine: Machine) -> None:
    machine.start()
    machine.guest.sock.sendall(struct.pack("<IBBHI", 1 << 20, OUTPUT, 1, 0, 1))
    assert machine.engine.expect(EXIT).exit == (137, 9)
    assert machine.monitor.wait() == 0


def test_what_was_not_asked_is_not_believed(machine: Machine) -> None:
    guest, engine = machine.guest, machine.engine
    exited, pid = struct.pack("<IIQ", 0, 0, 1), struct.pack("<I", 1)
    failure = struct.pack("<II", 0, 1) + b"exec\0\0"
    for id in (HULL, MAIN, 7):
        for kind, payload in (
            (EXIT, exited),
            (STARTED, pid),
            (PLACED, pid),
            (FAILED, failure),
            (OUTPUT, b"x"),
            (CREDIT, pid),
            (DONE, b""),
            (STATUS, exited),
            (PLACE, b"x"),
            (KILL, b""),
            (255, b""),
        ):
            guest.send(kind, id, payload, flags=1, argument=LAUNCH)
    guest.send(HELLO, HULL)
    engine.expect(HELLO, HULL)  # and nothing else had come through
    machine.start()
    for kind in (EXIT, CREDIT, STARTED, OUTPUT, FAILED):
        guest.send(kind, payload=b"")  # wrong lengths
    guest.send(STARTED, payload=struct.pack("<I", 99))
    guest.send(CREDIT, payload=struct.pack("<I", 0xFFFFFFFF))
    engine.send(STATE, HULL)
    statuses = {frame.id: frame for frame in (engine.receive(), engine.receive())}
    assert {id: (s.argument, s.number) for id, s in statuses.items()} == {
        HULL: (2, machine.hull),
        MAIN: (2, 5),
    }
    engine.expect(DONE, HULL)
    machine.finish()
    assert engine.expect(EXIT).exit == (0, 0)


def test_noise_from_the_guest(machine: Machine) -> None:
    machine.start()
    for _ in range(200):
        noise = os.urandom(8)
        machine.guest.sock.sendall(struct.pack("<I", 8) + os.urandom(8) + noise)
    machine.engine.send(KILL)
    frames: list[tuple[int, int]] = []
    while not frames or frames[-1] != (EXIT, MAIN):
        frame = machine.engine.receive()
        frames.append((frame.type, frame.id))
    assert machine.monitor.wait() == 0


def test_requests_to_the_guest_carry_no_descriptors(machine: Machine) -> None:
    with open("/dev/null") as null:
        machine.engine.send_with([null.fileno()], SETUP, HULL, b"x")
    data, fds, _, _ = socket.recv_fds(machine.guest.sock, 13, 4)
    assert len(data) == 13 and fds == []


def test_credit_is_returned_to_the_guest(machine: Machine) -> None:
    machine.start()
    for _ in range(64):
        machine.guest.send(OUTPUT, payload=CHUNK, flags=1)
        assert machine.guest.expect(CREDIT).number == len(CHUNK)
