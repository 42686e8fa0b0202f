"""`proa-native guest`, a service of a system of its own, on a terminal that plays its port."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proa import plan
from tests.native.monitor import EXEC, EXIT, FAILED, HELLO, OUTPUT, STARTED, STDIN, WITH_STDIN, gone
from tests.support.paths import NATIVE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a system of its own needs root")
HEADER = struct.Struct("<IBBHI")
PADDING = b"\xff" * (65536 + HEADER.size)
ANSWER_SECONDS = 20.0
PREPARE = """
mount -t tmpfs none /sys && mkdir -p /sys/class/virtio-ports/{port} &&
echo proa.agent > /sys/class/virtio-ports/{port}/name &&
exec {native} guest
"""


@dataclass
class Host:
    """The other end of the port."""

    master: int
    process: subprocess.Popen[bytes]
    buffer: bytes = b""

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        while len(self.buffer) < count:
            assert select.select([self.master], [], [], ANSWER_SECONDS)[0], "nothing comes"
            self.buffer += os.read(self.master, 1 << 16)
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def frame(self) -> tuple[int, int, bytes]:
        """The next frame: type, id, payload."""
        length, kind, _, _, number = HEADER.unpack(self.read(HEADER.size))
        return kind, number, self.read(length)

    def until(self, wanted: int) -> bytes:
        """The payload of the next frame of this type."""
        while True:
            kind, _, payload = self.frame()
            if kind == wanted:
                return payload

    def send(self, kind: int, number: int, payload: bytes = b"", flags: int = 0) -> None:
        """One frame."""
        os.write(self.master, HEADER.pack(len(payload), kind, flags, 0, number) + payload)

    def hello(self) -> bytes:
        """What a session begins with: padding, then its greeting."""
        assert self.read(len(PADDING)) == PADDING
        hello = self.read(HEADER.size)
        length, kind, _, version, number = HEADER.unpack(hello)
        assert (length, kind, version) == (0, HELLO, 1) and number
        return hello

    def run(self, number: int, script: str, flags: int = 0) -> None:
        """Start a shell."""
        steps = plan.encode((plan.Exec(("/bin/sh", "-c", script)),))
        self.send(EXEC, number, steps, flags)


@pytest.fixture
def host() -> Iterator[Host]:
    """An agent in a mount namespace of its own, whose port is a terminal."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    port = f"port-of-test-{os.getpid()}"
    link = Path("/dev", port)
    link.symlink_to(os.ttyname(slave))
    script = PREPARE.format(port=port, native=NATIVE)
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", script])
    try:
        yield Host(master, process)
    finally:
        process.kill()
        process.wait()
        link.unlink()
        os.close(master)
        os.close(slave)


def test_a_command_runs_after_the_greeting_came_back(host: Host) -> None:
    hello = host.hello()
    os.write(host.master, b"\x07the rest of an old frame" + hello[:5] + b"\xff" * 100 + hello)
    host.run(2, "echo $((6 * 7)); exit 3")
    host.until(STARTED)
    assert host.until(OUTPUT) == b"42\n"
    assert struct.unpack_from("<II", host.until(EXIT)) == (3, 0)


def test_input_reaches_a_command(host: Host) -> None:
    os.write(host.master, host.hello())
    host.run(2, "read line; echo got $line", WITH_STDIN)
    host.until(STARTED)
    host.send(STDIN, 2, b"this\n")
    assert host.until(OUTPUT) == b"got this\n"


def test_what_cannot_be_executed_is_told(host: Host) -> None:
    os.write(host.master, host.hello())
    host.send(EXEC, 2, plan.encode((plan.Exec(("/nothing/here",)),)))
    assert b"/nothing/here" in host.until(FAILED)


def test_another_host_ends_the_session_and_its_commands(host: Host) -> None:
    first = host.hello()
    os.write(host.master, first)
    host.run(2, "echo $$; exec sleep 1000")
    pid = int(host.until(OUTPUT))
    host.send(HELLO, 0)
    second = host.hello()
    assert second != first
    os.write(host.master, first + second)
    assert gone(pid)
    host.run(2, "echo anew")
    assert host.until(OUTPUT) == b"anew\n"


def test_a_service_that_is_stopped_says_goodbye(host: Host) -> None:
    os.write(host.master, host.hello())
    host.run(2, "echo $$; exec sleep 1000")
    pid = int(host.until(OUTPUT))
    host.process.terminate()
    assert host.until(HELLO) == b"" and gone(pid)


def test_a_session_that_dies_is_followed_by_another(host: Host) -> None:
    os.write(host.master, host.hello())
    children = f"/proc/{host.process.pid}/task/{host.process.pid}/children"
    os.kill(int(Path(children).read_text()), signal.SIGKILL)
    os.write(host.master, host.hello())
    host.run(2, "echo back")
    assert host.until(OUTPUT) == b"back\n"
