"""What running an image as a vm takes on the disk, and which files a start of one reads."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from proa.isolation.vm import qemu, template
from proa.isolation.vm.images import Wanted
from proa.isolation.vm.prepared import Prepared
from proa.isolation.vm.template import Template

BLOCK = 512


@dataclass(frozen=True)
class Piece:
    """Files of one kind; `shared` when vms of other images use the same ones.

    Without paths there are none yet; `bytes` then says what they would take, when that is known.
    """

    name: str
    paths: tuple[Path, ...]
    shared: bool
    note: str = ""
    expected_bytes: int = 0

    @property
    def bytes(self) -> int:
        """On the disk."""
        found = (path.stat().st_blocks * BLOCK for path in self.paths if path.exists())
        return sum(found) or self.expected_bytes


NOTHING = tuple(
    Piece(name, (), shared, "made when the first vm starts")
    for name, shared in (
        ("kernel", True), ("initramfs", True), ("image as a disk", False), ("template", True),
        ("template of the image", False), ("empty writable disk", False),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """An image and its disk, made or not."""

    image_id: str
    disk: Path


def pieces(
    root: Path, ready: Prepared, machine: qemu.Machine, generic: str, subject: Subject
) -> tuple[Piece, ...]:
    """All of them; `generic` is the key of the template of this machine's shape."""
    kernel = ready.firmware.kernel
    shape = f"{machine.ram_bytes >> 20} MiB, {machine.vcpus} cpu"
    found = [
        Piece("kernel", (kernel.image,), True, f"{kernel.release}, {kernel.origin}"),
        Piece("initramfs", (ready.firmware.initramfs,), True, "our init and the modules"),
        Piece("image as a disk", _those(subject.disk), False,
              "EROFS" if subject.disk.exists() else "made when its first vm starts"),
        _template("template", root / generic, True, shape),
    ]  # fmt: skip
    if subject.disk.exists():
        blank = Template(generic, -1, -1, 0)
        wanted = Wanted(
            machine, subject.image_id, subject.disk, blank, ready.seed, ready.skeleton
        )  # fmt: skip
        own = _template("template of the image", root / wanted.key(), False, shape)
    else:
        own = _template("template of the image", root / "none", False, shape)
    empty = Piece("empty writable disk", (), False, "one for each vm", _seeded(ready, root))
    return (*found, own, empty)


def _template(name: str, directory: Path, shared: bool, shape: str) -> Piece:
    files = tuple(directory / part for part in ("memory", "state", template.SEED))
    there = tuple(path for path in files if path.exists())
    return Piece(name, there, shared, shape if there else "not made yet")


def _those(path: Path) -> tuple[Path, ...]:
    return (path,) if path.exists() else ()


def _seeded(ready: Prepared, root: Path) -> int:
    """What a new instance's disk takes: one is made and measured."""
    path = root.parent / f".measured-{secrets.token_hex(4)}"
    try:
        os.close(ready.seed.create(path))
        return path.stat().st_blocks * BLOCK
    finally:
        path.unlink(missing_ok=True)
