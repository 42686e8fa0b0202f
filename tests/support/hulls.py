"""Hulls without an engine: a program of a test's in QEMU's place, with exactly QEMU's plan."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proa.agent import Dispatcher
from proa.isolation.places import Places, Site
from proa.isolation.vm import hull
from proa.isolation.vm.layers import Opened
from proa.resources import Share
from tests.support.paths import NATIVE

PYTHON = "/usr/bin/python3"


@dataclass
class Yard:
    """Where hulls are made."""

    root: Path
    places: Places
    skeleton: Path

    def launch(
        self, script: str, disk: Path, image: Path | None = None, shares: tuple[Share, ...] = ()
    ) -> Taken:
        """A hull in which the host's Python runs a script in QEMU's stead."""
        berth = hull.make(self.places, self.skeleton)
        disk.touch()
        image = image or disk
        opened = [
            os.open(image, os.O_RDONLY | os.O_CLOEXEC),
            os.open(disk, os.O_RDWR | os.O_CLOEXEC),
        ]
        try:
            program = str(Path(PYTHON).resolve())
            cargo = berth.cargo(opened[0], Opened.single(opened[1]))
            waiter = hull.begin(berth, (program, "-ISc", script), cargo, shares, kvm=False)
            berth.place.agent.finish(waiter)
        finally:
            berth.close_ends()
            for descriptor in opened:
                os.close(descriptor)
        return Taken(berth, self.places)


@dataclass
class Taken:
    """A hull with a stranger in it."""

    berth: hull.Hull
    places: Places

    @property
    def control(self) -> socket.socket:
        """The engine's end of QMP, spoken by the test."""
        return socket.socket(fileno=os.dup(self.berth.qmp.fileno()))

    def end(self) -> None:
        """Sink it."""
        self.berth.end(self.places)


Take = Callable[[str], Taken]


@contextmanager
def yard(root: Path) -> Iterator[Yard]:
    """Places below a directory."""
    root.chmod(0o755)
    (root / "run").mkdir()
    site = Site(root / "places", root / "run", f"proa-test-{os.getpid()}", NATIVE)
    places = Places(site, Dispatcher(), 0)
    try:
        yield Yard(root, places, hull.make_skeleton(root / "skeleton"))
    finally:
        places.close()
        places.destroy()
