"""A place with a directory as its root, to run plans in: the real monitor, the real verbs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proa import plan
from proa.host import mounts
from proa.isolation import places
from proa.plan import Step
from tests.native.monitor import (
    ERR,
    EXIT,
    FAILED,
    JOIN,
    LAUNCH,
    MUX,
    OUT,
    PLACE,
    PLACED,
    STARTED,
    Connection,
    Monitor,
    read_all,
)
from tests.support.paths import PROBE

BASE = 0x4000_0000 + 9 * 65536
MASK = 0xA80425FB  # Docker's capabilities
CONFINED = (plan.Capabilities(f"{MASK:x}"), plan.NoNewPrivileges())


@dataclass(frozen=True)
class Done:
    """How a plan ended: the program's code and output, or the step that failed."""

    code: int = -1
    out: str = ""
    err: str = ""
    error: int = 0
    verb: str = ""
    argument: str = ""


class Box:
    """One instance: a root directory to fill beforehand, then `run`, then perhaps `exec`."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.root.mkdir()
        shutil.copy(PROBE, self.root / "probe")
        self.monitor = Monitor()
        self.engine: Connection = self.monitor.connect()
        self.pid = 0
        self._next = 2

    def close(self) -> None:
        """End everything."""
        self.engine.sock.close()
        self.monitor.process.kill()
        self.monitor.__exit__()

    def file(self, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        """A file of the image."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        target.write_bytes(data)
        target.chmod(mode)
        return target

    def place(self) -> int:
        """Make the place; the pid of its waiting process."""
        devices = [mounts.open_tree(f"/dev/{name}") for name in places.DEVICES]
        try:
            steps = plan.encode(places.place_plan(0, BASE))
            self.engine.send_with(devices, PLACE, payload=steps)
            self.pid = self.engine.expect(PLACED).number
        finally:
            for descriptor in devices:
                os.close(descriptor)
        return self.pid

    def tree(self) -> int:
        """The root directory as a detached mount with the place's ids."""
        namespace = mounts.open_user_namespace(self.pid)
        try:
            return mounts.idmapped(self.root, namespace)
        finally:
            os.close(namespace)

    def launch(self, *steps: Step, flags: int = 0, trees: Sequence[int] = ()) -> Done | None:
        """Launch in the place; None when the program runs.  `fd:0` is the root, `trees` follow."""
        if not self.pid:
            self.place()
        root = self.tree()
        data = plan.encode((plan.Root("fd:0"), *steps))
        self.engine.send_with([root, *trees], LAUNCH, payload=data, flags=flags)
        os.close(root)
        frame = self.engine.receive()
        if frame.type == FAILED:
            _, error, verb, argument = frame.failure
            return Done(error=error, verb=verb, argument=argument)
        assert frame.type == STARTED, frame
        return None

    def run(self, *steps: Step, trees: Sequence[int] = ()) -> Done:
        """Launch and wait for the end."""
        if not self.pid:
            self.place()
        client = self.engine.attach(OUT | ERR | MUX)
        failed = self.launch(*steps, trees=trees)
        if failed:
            return failed
        out, err = split(read_all(client))
        code, _ = self.engine.expect(EXIT).exit
        return Done(code, out.decode(), err.decode())

    def probe(self, *argv: str, before: Sequence[Step] = ()) -> Done:
        """Run the probe, confined as containers are."""
        return self.run(*before, *CONFINED, plan.Exec(("/probe", *argv)))

    def idle(self, *steps: Step) -> None:
        """Launch the place with nothing but a waiting builtin."""
        failed = self.launch(*steps, plan.Builtin(("pause",)))
        assert failed is None, failed

    def exec(self, *steps: Step, stdin: bytes | None = None) -> tuple[Done, bytes]:
        """Run a further process; how it ended, and its stdout as bytes."""
        number, self._next = self._next, self._next + 1
        client = self.engine.attach(OUT | ERR | MUX | (1 | 16 if stdin is not None else 0), number)
        self.engine.send(4, number, plan.encode(steps), flags=JOIN | (stdin is not None))
        frame = self.engine.receive()
        if frame.type == FAILED:
            _, error, verb, argument = frame.failure
            return Done(error=error, verb=verb, argument=argument), b""
        if stdin is not None:
            with contextlib.suppress(OSError):  # a builtin that ends early does not read it
                client.sendall(stdin)
                client.shutdown(socket.SHUT_WR)
        out, err = split(read_all(client))
        code, _ = self.engine.expect(EXIT, number).exit
        return Done(code, out.decode(errors="replace"), err.decode()), out


def split(data: bytes) -> tuple[bytes, bytes]:
    """Stdout and stderr of Docker's multiplexed stream."""
    streams = {1: bytearray(), 2: bytearray()}
    while data:
        kind, length = struct.unpack_from(">BxxxI", data)
        streams[kind] += data[8 : 8 + length]
        data = data[8 + length :]
    return bytes(streams[1]), bytes(streams[2])
