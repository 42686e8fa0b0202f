"""The monitor says nothing while a guest is copied, and takes over a guest it has never seen."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from tests.native.monitor import (
    ADOPT,
    CREDIT,
    DONE,
    EXIT,
    FAILED,
    HELLO,
    MAIN,
    OUT,
    OUTPUT,
    QUIESCE,
    RESUME,
    SIGNAL,
    STATE,
    STATUS,
    WITH_LOG,
    Connection,
    read_until,
)
from tests.native.test_guest import HULL, Machine, machine

__all__ = ["machine"]  # the fixture

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")


def quiesce(machine: Machine) -> None:
    machine.engine.send(QUIESCE, HULL)
    machine.guest.expect(QUIESCE, HULL)
    machine.guest.send(DONE, HULL, argument=QUIESCE)
    assert machine.engine.expect(DONE, HULL).argument == QUIESCE


def silent(guest: Connection) -> bool:
    guest.sock.settimeout(0.05)
    try:
        return not guest.sock.recv(1)
    except TimeoutError:
        return True
    finally:
        guest.sock.settimeout(30)


def test_frames_wait_until_the_guest_goes_on(machine: Machine) -> None:
    machine.start()
    quiesce(machine)
    machine.engine.send(SIGNAL, argument=10)
    machine.engine.send(SIGNAL, argument=12)
    assert silent(machine.guest)
    machine.engine.send(RESUME, HULL)
    machine.guest.expect(RESUME, HULL)
    assert machine.guest.expect(SIGNAL).argument == 10
    assert machine.guest.expect(SIGNAL).argument == 12
    machine.guest.send(DONE, HULL, argument=RESUME)
    assert machine.engine.expect(DONE, HULL).argument == RESUME


def test_the_end_of_the_engine_lets_the_guest_go_on(machine: Machine) -> None:
    machine.start()
    quiesce(machine)
    machine.engine.send(SIGNAL, argument=10)
    machine.engine.sock.close()
    machine.guest.expect(RESUME, HULL)
    assert machine.guest.expect(SIGNAL).argument == 10
    machine.guest.send(DONE, HULL, argument=RESUME)
    again = machine.monitor.connect()
    again.send(QUIESCE, HULL)
    machine.guest.expect(QUIESCE, HULL)


def test_a_refusal_is_passed_on_and_undone(machine: Machine) -> None:
    machine.start()
    machine.engine.send(QUIESCE, HULL)
    machine.guest.expect(QUIESCE, HULL)
    machine.engine.send(SIGNAL, argument=10)
    payload = struct.pack("<II", 0, errno.EBUSY) + b"quiesce\0\0"
    machine.guest.send(FAILED, HULL, payload, argument=QUIESCE)
    assert machine.engine.expect(FAILED, HULL).failure[1] == errno.EBUSY
    assert machine.guest.expect(SIGNAL).argument == 10


def test_it_is_asked_once(machine: Machine) -> None:
    machine.start()
    quiesce(machine)
    for kind in (QUIESCE, ADOPT):
        machine.engine.send(kind, HULL)
        assert machine.engine.expect(FAILED, HULL).failure[1] == errno.EBUSY
    assert silent(machine.guest)


def test_a_monitor_that_launched_takes_nothing_over(machine: Machine) -> None:
    machine.start()
    machine.engine.send(ADOPT, HULL)
    assert machine.engine.expect(FAILED, HULL).failure[1] == errno.EEXIST


def adopt(machine: Machine, *ids: int) -> None:
    machine.engine.send(ADOPT, HULL, flags=WITH_LOG)
    machine.guest.expect(ADOPT, HULL)
    for number in ids:
        status = struct.pack("<IIIQ", 100 + number, 0, 0, 0)
        machine.guest.send(STATUS, number, status, argument=2)
    machine.guest.send(DONE, HULL, argument=ADOPT)
    assert machine.engine.expect(DONE, HULL).argument == ADOPT


def test_a_copy_is_taken_over(machine: Machine) -> None:
    engine, guest = machine.engine, machine.guest
    client = engine.attach(OUT)
    adopt(machine, MAIN, 7)
    engine.send(STATE, HULL)
    listed = [(f.id, f.argument, f.number) for f in (engine.receive(), engine.receive())]
    hull = engine.receive()
    assert sorted([*listed, (hull.id, hull.argument, hull.number)])[1:] == [
        (MAIN, 2, 101),
        (7, 2, 107),
    ]
    engine.expect(DONE, HULL)
    guest.send(OUTPUT, MAIN, bytes(32 << 10), flags=1)
    guest.expect(CREDIT, MAIN)
    guest.send(OUTPUT, MAIN, b"on\n", flags=1)
    assert read_until(client, b"on\n").endswith(b"on\n")
    guest.send(EXIT, 7, struct.pack("<IIQ", 3, 0, 1))
    assert engine.expect(EXIT, 7).exit == (3, 0)
    engine.sock.close()  # it is an instance now, and outlives engines
    again = machine.monitor.connect()
    again.send(STATE, HULL)
    assert again.receive().type == STATUS
    guest.send(EXIT, MAIN, struct.pack("<IIQ", 5, 0, 1))
    assert machine.monitor.wait() == 0
    assert machine.monitor.record["code"] == "5"
    assert (1, b"on\n") in machine.monitor.log


def test_what_a_guest_lists_unasked_is_nothing(machine: Machine) -> None:
    machine.guest.send(STATUS, MAIN, struct.pack("<IIIQ", 100, 0, 0, 0), argument=2)
    machine.guest.send(DONE, HULL, argument=ADOPT)
    machine.guest.send(HELLO, HULL, b"proa 1")
    machine.engine.expect(HELLO, HULL)
    adopt(machine)
    machine.engine.send(STATE, HULL)
    assert machine.engine.expect(STATUS, HULL).argument == 2
    machine.engine.expect(DONE, HULL)


def test_a_guest_cannot_list_the_hull_nor_without_end(machine: Machine) -> None:
    engine, guest = machine.engine, machine.guest
    engine.send(ADOPT, HULL)
    guest.expect(ADOPT, HULL)
    status = struct.pack("<IIIQ", 100, 0, 0, 0)
    guest.send(STATUS, HULL, status, argument=2)
    for number in range(2, 1500):
        guest.send(STATUS, number, status, argument=2)
    guest.send(DONE, HULL, argument=ADOPT)
    engine.expect(DONE, HULL)
    engine.send(STATE, HULL)
    count = 0
    while (frame := engine.receive()).type == STATUS:
        count += 1
        if frame.id == HULL:
            assert frame.number != 100
    assert count == 1 + 1024
