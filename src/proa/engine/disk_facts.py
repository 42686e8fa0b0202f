"""What a stranger's disk says about its machine: read by a confined guest, judged as text.

The disk is only ever read: journals are replayed on an overlay that is thrown away.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proa.advice.disk import reading, wanted
from proa.advice.disk.machine import Machine
from proa.advice.disk.tree import NAMES_MAXIMUM, Entry, Tree
from proa.engine import disk_reader, whole
from proa.engine.core import Core
from proa.engine.tree import HARD_LINK
from proa.engine.tree import Entry as Record
from proa.errors import Corrupt, Invalid, NotFound, ProaError, Unsupported
from proa.image.machine import formats
from proa.image.machine.probe import Volume
from proa.isolation.vm import layers, qcow2
from proa.isolation.vm.inspector import DEVICE, Disk, Inspector
from proa.isolation.vm.layers import Chain

_BATCH = 64
STATUS_MAXIMUM = 1 << 20  # of the package database
_MADE_WHOLE = ("vdi",)  # QEMU would write to it


@dataclass(frozen=True)
class Wanted:
    """A disk of the host's, by its absolute path, or an image that holds one; its root's number,
    where several may be."""

    disk: str
    root: int | None = None


def machine(core: Core, which: Wanted) -> Machine:
    """The machine of a disk.  Takes a guest's boot.

    Raises NotFound, Invalid for what is no disk, Corrupt, Unsupported for an encrypted one.
    """
    path = path_of(core, which.disk)
    kind = format_of(path)
    with core.images.workspace() as work:
        disk, size = opened(path, kind, work)
        with core.vms.inspector(disk, work) as vm:
            return _machine(vm, which, size)


def path_of(core: Core, name: str) -> Path:
    """A disk by its absolute path, or the one an image holds."""
    if name.startswith("/"):
        return Path(name)
    image = core.images.get(name)
    held = whole.held(core.images, image)
    if held is None:
        raise Invalid(f"the image '{name}' holds no disk", hint="name a disk by its absolute path")
    return held


def format_of(path: Path) -> str:
    """What kind of disk a file is, if a guest can read it as it is."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise Invalid(f"the disk '{path}' is no regular file")
        with path.open("rb") as file:
            kind = formats.detect(file.read(formats.HEAD_BYTES))
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise NotFound(f"cannot open the disk '{path}': {reason}") from None
    if kind in _MADE_WHOLE or facts.st_size < 512:
        raise Unsupported(
            f"the disk '{path}' cannot be looked at as it is",
            hint="make a qcow2 of it: qemu-img convert -O qcow2 IN OUT",
        )
    return kind


def opened(path: Path, kind: str, work: Path) -> tuple[Disk, int]:
    """The disk under an overlay of ours, or as it is where QEMU does not write it anyway."""
    scratch = work / "scratch"
    if kind not in ("raw", "qcow2"):
        return Disk(path, kind, scratch), 0
    base = layers.base(path, kind)
    size = layers.virtual_bytes(base)
    overlay = work / "overlay"
    os.close(qcow2.create(overlay, size))
    return Disk(overlay, "qcow2", scratch, lambda: layers.open_readonly(Chain((base,)))), size


def _machine(vm: Inspector, which: Wanted, size: int) -> Machine:
    found = disk_reader.volumes(vm)
    shown = tuple(_shown(item) for item in found)
    disk = reading.Disk(os.path.basename(which.disk), shown, size)
    try:
        root = disk_reader.find(vm, found, which.root)
    except (Invalid, Unsupported, Corrupt) as error:
        strange = _strange(vm, disk, found, error.message)
        if strange.system or _nothing_there(error, which):
            return strange
        raise
    tree = _names(vm, root.target)
    _texts(vm, root.target, tree)
    return reading.of_tree(
        tree, reading.Disk(disk.name, shown, size, root.used_bytes, root.problems)
    )


def _nothing_there(error: ProaError, which: Wanted) -> bool:
    """Whether it is a disk without a root of Linux, rather than one with several."""
    return which.root is None and isinstance(error, Invalid) and "--root" not in error.hint


def _shown(item: Volume) -> str:
    where = f"partition {item.number}" if item.number else "whole disk"
    return f"{where}: {item.kind or 'unknown'}{f' {item.label!r}' if item.label else ''}"


def _strange(vm: Inspector, disk: reading.Disk, found: Sequence[Volume], why: str) -> Machine:
    head = vm.read((DEVICE,))[0]
    numbers = [item.number for item in found if item.number]
    heads = [(number, vm.read((f"{DEVICE}{number}",))[0]) for number in numbers]
    return reading.of_strange(disk, head, heads, why)


def _names(vm: Inspector, target: str) -> Tree:
    """All names below the root."""
    tree = Tree()
    for path, record in disk_reader.names(vm, target, NAMES_MAXIMUM):
        tree.add(f"/{path}", entry(record))
    return tree


def entry(record: Record) -> Entry:
    """A name of a listing.  A file's size is told where others have a device."""
    symbolic = record.link if stat.S_ISLNK(record.mode) else ""
    size = 0 if record.flags & HARD_LINK else record.major | record.minor << 32
    return Entry(record.mode, size if stat.S_ISREG(record.mode) else 0, symbolic)


def _texts(vm: Inspector, target: str, tree: Tree) -> None:
    """Read the files that tell; what is no text is left out."""
    paths = [*wanted.wanted(tree), "/var/lib/dpkg/status"]
    left = wanted.BYTES_MAXIMUM + STATUS_MAXIMUM
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        for path, data in zip(batch, vm.read([f"{target}{path}" for path in batch]), strict=True):
            left -= len(data)
            if left < 0:
                raise Corrupt("the guest says more of the disk's files than it said there was")
            if data and b"\0" not in data[:4096]:
                tree.texts[path] = data.decode("utf-8", "replace")
