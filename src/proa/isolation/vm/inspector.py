"""A short-lived vm that looks at a stranger's disk: the host's kernel never sees its file systems.

QEMU is confined as for any instance and opens the one file; its guest's kernel reads partition
tables and file systems, and everything leaves by the agent's streams.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proa import plan
from proa.agent import Agent, Attach
from proa.errors import Corrupt, Timeout
from proa.isolation.vm import child, extras, guest, initramfs, inside, modules, power
from proa.isolation.vm.layers import Opened

RAM_BYTES = 512 << 20
DEVICE = "/dev/vda"
READ_ONLY_FORMATS = ("vmdk", "vhdx")  # QEMU writes some kinds of them not at all
ANSWER_SECONDS = 60.0
ANSWER_MAXIMUM = 80 << 20
SCRATCH_BYTES = 256 << 30
SCRATCH_DEVICE = "/dev/vdb"
_numbers = itertools.count(0x6000_0000)  # out of the way of execs' own


@dataclass(frozen=True)
class Disk:
    """A disk's file, which belongs to us: journals may be replayed on it."""

    path: Path
    format: str
    scratch: Path  # does not exist yet: what the guest hands out in bulk
    below: Callable[[], Opened] = Opened.none  # what it lies over, when it is an overlay of ours

    @property
    def writable(self) -> bool:
        """Whether the guest may write to it."""
        return self.format not in READ_ONLY_FORMATS

    def parts(self) -> power.Parts:
        """As `power.boot` takes it."""
        return power.Parts(
            self.path,
            self._make_scratch,
            format=self.format,
            writable=self.writable,
            below=self.below,
        )

    def _make_scratch(self) -> Opened:
        descriptor = os.open(self.scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, SCRATCH_BYTES)
        return Opened.single(descriptor)


class Inspector:
    """The vm, for as long as its context lasts."""

    def __init__(self, agent: Agent, kernel: guest.Kernel) -> None:
        self._agent = agent
        self._kernel = kernel
        self._known = {"ext4"}

    def read(self, paths: Sequence[str]) -> list[bytes]:
        """The first MiB of each file or disk; empty where there is none."""
        with self.stream(plan.Builtin(("read", *paths))) as connection:
            data = bytearray()
            while chunk := connection.recv(1 << 18):
                data += chunk
                if len(data) > ANSWER_MAXIMUM:
                    raise Corrupt("the guest's answer is too long")
        return inside.records(bytes(data), len(paths))

    def mount(self, kind: str, device: str, target: str, options: str = "") -> None:
        """Mount a file system read-only.  Raises LaunchError with the guest's errno."""
        if kind not in self._known:
            names = extras.names(self._kernel.directory, kind)
            self._agent.setup(tuple(plan.Module(f"/lib/{name}.ko") for name in names))
            self._known.add(kind)
        self._agent.setup((plan.MountFs(kind, device, target, "ro,nosuid,nodev", options),))

    def root_to_write(self, target: str) -> str:
        """The tree at `target` as it can be written to, for its own programs; nothing is kept."""
        upper, work, root = (f"/mnt/writable/{name}" for name in ("upper", "work", "root"))
        layers = f"lowerdir={target},upperdir={upper},workdir={work}"
        self._agent.setup((
            plan.MountFs("tmpfs", "writable", "/mnt/writable", "nosuid,nodev"),
            *(plan.Directory(path) for path in (upper, work, root)),
            plan.MountFs("overlay", "overlay", root, "nosuid,nodev", layers),
        ))  # fmt: skip
        return root

    @contextmanager
    def stream(self, *steps: plan.Step) -> Iterator[socket.socket]:
        """What a program beside the guest's init writes."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                number = next(_numbers)
                self._agent.attach(number, theirs.fileno(), Attach.OUT)
            self._agent.exec(number, steps, flags=0)
            ours.settimeout(ANSWER_SECONDS)
            try:
                yield ours
            except TimeoutError:
                raise Timeout("the guest that reads the disk says nothing") from None


def firmware(kernel: guest.Kernel, init: bytes, path: Path) -> child.Firmware:
    """Kernel and first file system (written to `path`); file systems are there, not loaded."""
    own = [
        (name, (kernel.directory / "modules" / f"{name}.ko").read_bytes())
        for name in kernel.modules
    ]
    more = {
        f"lib/{name}.ko": data
        for kind in modules.FILE_SYSTEMS
        for name, data in extras.load(kernel.directory, kind)
        if name not in kernel.modules
    }
    path.write_bytes(initramfs.build(init, own, more.items()))
    return child.Firmware(kernel, path)
