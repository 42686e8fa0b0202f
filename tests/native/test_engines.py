"""Engines come and go: what the monitor keeps for them, and what they cannot break."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.monitor import (
    CLOSE,
    DONE,
    EXEC,
    EXIT,
    FAILED,
    GET_FD,
    HOLD,
    IN,
    JOIN,
    KILL,
    OUT,
    PLACE,
    SIGNAL,
    STARTED,
    STATE,
    STATUS,
    WITH_LOG,
    WITH_STDIN,
    Connection,
    Monitor,
    command,
    gone,
    read_all,
    shell,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")


# -- engines come and go -------------------------------------------------------------------------


def test_spare_place_ends_with_its_engine(monitor: Monitor, engine: Connection) -> None:
    pid = engine.place()
    engine.sock.close()
    assert monitor.wait() == 0 and gone(pid)
    assert not (monitor.directory / "exit").exists()


def test_engine_lost_and_regained(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    pid = engine.launch(command("sleep", "1000"))
    engine.exec(2, shell("exit 3"))
    engine.expect(EXIT, 2)
    engine.sock.close()
    again, other = monitor.connect(), monitor.connect()
    again.send(STATE, 0)
    status = again.expect(STATUS)
    assert (status.argument, status.number) == (2, pid)
    assert again.expect(DONE, 0).argument == STATE
    other.send(SIGNAL, argument=signal.SIGKILL)
    assert again.expect(EXIT).exit == other.expect(EXIT).exit == (137, 9)
    assert again.ended() and other.ended()
    assert monitor.wait() == 0


def test_exit_without_any_engine(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    client = engine.attach(IN | CLOSE)
    engine.launch(shell("read x; exit 8"), WITH_STDIN | WITH_LOG)
    engine.sock.close()
    client.sendall(b"\n")
    assert monitor.wait() == 0
    assert monitor.record["code"] == "8"


def test_exec_exit_is_kept_for_the_next_engine(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    client = engine.attach(IN | OUT | CLOSE, 2)
    engine.exec(2, shell("read x; exit 8"), JOIN | WITH_STDIN)
    engine.sock.close()
    client.sendall(b"\n")
    assert read_all(client) == b""
    again = monitor.connect()
    again.send(STATE, 0)
    states = {frame.id: frame for frame in (again.receive(), again.receive())}
    assert states[2].argument == 3
    assert struct.unpack_from("<III", states[2].payload)[1] == 8
    assert again.expect(DONE, 0)


def test_half_a_frame_harms_nobody(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    broken = monitor.connect()
    broken.sock.sendall(struct.pack("<IBBHI", 100, PLACE, 0, 0, 1) + b"only a part")
    broken.sock.close()
    rude = monitor.connect()
    rude.sock.sendall(struct.pack("<IBBHI", 1 << 30, PLACE, 0, 0, 1))
    assert rude.ended()
    engine.send(200, 99, b"an unknown type")
    engine.send(SIGNAL, 99, argument=9)
    engine.launch(shell("exit 2"))
    assert engine.expect(EXIT).exit == (2, 0)


def test_random_bytes_from_a_connection(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    for _ in range(50):
        noise = monitor.connect()
        noise.sock.sendall(struct.pack("<I", 20) + bytes([200]) + os.urandom(60))
        noise.sock.close()
    engine.launch(shell("exit 2"))
    assert engine.expect(EXIT).exit == (2, 0)


def test_kept_descriptor_is_given_back() -> None:
    reading, writing = os.pipe()
    with Monitor(keep=[writing]) as monitor:
        os.close(writing)
        engine = monitor.connect()
        engine.send(GET_FD, 5)
        data, fds, _, _ = socket.recv_fds(engine.sock, 12, 1)
        assert data[4] == DONE and len(fds) == 1
        os.write(fds[0], b"kept")
        assert os.read(reading, 10) == b"kept"
        engine.send(GET_FD, 5, argument=1)
        assert engine.expect(FAILED, 5).failure[1] == errno.EBADF
        os.close(fds[0])
    os.close(reading)


def test_descriptors_of_requests_do_not_pile_up(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    table = Path(f"/proc/{monitor.process.pid}/fd")
    before = len(list(table.iterdir()))
    with open("/dev/null") as null:
        for id in range(2, 12):
            engine.send_with([null.fileno()] * 10, EXEC, id, shell("exit 0"), flags=JOIN)
            engine.expect(STARTED, id)
            engine.expect(EXIT, id)
        engine.send_with([null.fileno()] * 60, 200, 0)
        engine.send(STATE, 0)
        engine.expect(STATUS)
        engine.expect(DONE, 0)
    assert len(list(table.iterdir())) == before


# -- the instance's directory --------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_full_disk_drops_log_but_not_the_record(small_disk: Path) -> None:
    with Monitor(directory=small_disk) as monitor:
        engine = monitor.connect()
        engine.place()
        client = engine.attach(OUT)
        engine.launch(command("head", "-c", "1000000", "/dev/zero"), WITH_LOG)
        assert len(read_all(client)) == 1000000
        assert engine.expect(EXIT).exit == (0, 0)
        assert monitor.wait() == 0
        assert monitor.record["code"] == "0"
        assert 0 < sum(len(data) for _, data in monitor.log) < 128 << 10


def test_held_descriptor_is_let_go_at_the_end(monitor: Monitor, engine: Connection) -> None:
    reading, writing = os.pipe()
    engine.send_with([writing], HOLD, 0)
    os.close(writing)
    assert engine.expect(DONE, 0).argument == HOLD
    engine.place()
    client = engine.attach(OUT)
    engine.launch(shell("head -c 300000 /dev/zero"))
    assert os.read(reading, 1) == b""  # although the monitor lingers for its client
    assert monitor.process.poll() is None
    assert len(read_all(client)) == 300000
    os.close(reading)


def test_death_of_a_waiting_place_is_told(monitor: Monitor, engine: Connection) -> None:
    os.kill(engine.place(), signal.SIGKILL)
    assert engine.expect(EXIT).exit == (137, 9)
    engine.sock.close()
    assert monitor.wait() == 0
    assert not (monitor.directory / "exit").exists()


def test_waiting_place_dies_with_its_monitor(monitor: Monitor, engine: Connection) -> None:
    pid = engine.place()
    monitor.process.kill()
    assert gone(pid)
    assert engine.ended()


def test_monitor_ignores_polite_signals(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        monitor.process.send_signal(number)
    engine.send(SIGNAL, argument=signal.SIGKILL)
    assert engine.expect(EXIT).exit == (137, 9)
    assert monitor.wait() == 0


def test_last_request_of_a_closed_connection_is_heard(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    os.kill(monitor.process.pid, signal.SIGSTOP)
    for id in range(2, 10):
        engine.send(EXEC, id, command("true"), flags=JOIN)
    engine.send(KILL)
    engine.sock.close()  # the answers find nobody
    os.kill(monitor.process.pid, signal.SIGCONT)
    assert monitor.wait() == 0
    assert monitor.record["code"] == "137"
