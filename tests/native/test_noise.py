"""Seeded noise: frames of every type, in any order, from engines, clients and a guest.

Whatever is said, the monitor neither dies nor hangs (nor trips a sanitizer), and KILL ends it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket

import pytest

from tests.native.monitor import (
    ATTACH,
    CREDIT,
    DONE,
    EXIT,
    FAILED,
    HELLO,
    HOLD,
    KILL,
    OUTPUT,
    PLACE_PLAN,
    PLACED,
    QUIT,
    STARTED,
    Connection,
    Monitor,
    command,
    plan,
    shell,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")

PLANS = (
    PLACE_PLAN,
    command("cat"),
    command("yes"),
    shell("echo a; echo b >&2; exit 3"),
    plan(("builtin", "pause")),
    plan(("tty", "1", "2"), ("exec", "/bin/cat")),
    plan(("exec", "/no/such")),
    b"no plan",
    b"",
)
REQUESTS = tuple(kind for kind in (*range(1, HOLD + 1), 200) if kind not in (KILL, QUIT))
GUEST_PAYLOADS = {
    DONE: 0, PLACED: 4, STARTED: 4, FAILED: 14, OUTPUT: 9000, EXIT: 16, CREDIT: 4, HELLO: 2, 3: 0,
}  # fmt: skip


class Noise:
    """One monitor with talkative company."""

    def __init__(self, seed: int, monitor: Monitor, guest: Connection | None) -> None:
        self.random = random.Random(seed)
        self.monitor = monitor
        self.guest = guest
        self.engines = [self._connect()]
        self.clients: list[socket.socket] = []

    def _connect(self) -> Connection:
        connection = self.monitor.connect()
        connection.sock.setblocking(False)
        return connection

    def engine(self) -> None:
        engine, kind = self.random.choice(self.engines), self.random.choice(REQUESTS)
        id, flags = self.random.choice((0, 1, 1, 1, 2, 3)), self.random.randrange(256)
        payload = self.random.choice(PLANS) if kind < ATTACH else self.random.randbytes(4)
        if kind in (ATTACH, HOLD):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self.clients.append(ours)
            with theirs:
                engine.send_with([theirs.fileno()], kind, id, payload[:3], flags=flags)
        else:
            engine.send(kind, id, payload, flags=flags, argument=self.random.choice((1, 9, 15, 65)))
        while engine.sock.recv(1 << 16):
            pass

    def client(self) -> None:
        if not self.clients:
            return
        client = self.random.choice(self.clients)
        match self.random.randrange(4):
            case 0:
                client.send(b"hello\n" * self.random.randrange(1, 3000))
            case 1:
                client.recv(1 << 16)
            case 2:
                client.shutdown(self.random.randrange(3))
            case _:
                client.close()

    def guest_frame(self) -> None:
        if self.guest is None:
            return
        kind, length = self.random.choice(tuple(GUEST_PAYLOADS.items()))
        payload, id = self.random.randbytes(length), self.random.randrange(4)
        self.guest.send(kind, id, payload, flags=1, argument=self.random.randrange(1, 5))
        self.guest.sock.recv(1 << 16)

    def company(self) -> None:
        if self.random.random() < 0.5:
            self.engines.append(self._connect())
        elif len(self.engines) > 1:
            self.engines.pop(0).sock.close()

    def make(self, count: int) -> None:
        sources = (self.engine, self.client, self.guest_frame, self.company)
        for _ in range(count):
            with contextlib.suppress(OSError):  # full, closed, dropped: all fine
                self.random.choices(sources, (8, 3, 4, 1))[0]()

    def close(self) -> None:
        for sock in (*self.clients, *(engine.sock for engine in self.engines)):
            sock.close()


@pytest.mark.parametrize("seed", range(24))
def test_noise(seed: int) -> None:
    ours, theirs = socket.socketpair()
    guest = Connection(ours) if seed % 2 else None
    with ours, theirs, Monitor(channel=theirs if guest else None) as monitor:
        ours.setblocking(False)
        noise = Noise(seed, monitor, guest)
        noise.make(300)
        assert monitor.process.poll() in (None, 0)
        with contextlib.suppress(OSError):  # it may have ended
            last = monitor.connect()
            last.send(KILL)
            last.sock.close()
        noise.close()
        assert monitor.wait() == 0
