"""The disks of a running guest: a new overlay under it, in milliseconds."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, ProaError
from proa.isolation.vm import blocks, layers, qmp
from proa.isolation.vm.blocks import Cache
from proa.isolation.vm.layers import Chain, Chains, Layer
from proa.isolation.vm.machine import Machine

_NODE = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,15})\.(\d{1,9})")


def freeze(machine: Machine, directory: Path, into: Path | None = None) -> Chains:
    """Put an empty overlay under a running guest on every disk; the chains as they were, frozen.

    With `into` they are shared there (`layers.share`).  The guest goes on, and its disks are of
    one moment; it is not asked to write out its caches first.  Whatever is interrupted, the record
    is right: an overlay that is in it and not in use is empty.
    """
    return freeze_disks(machine.qmp, directory, into)


def freeze_disks(control: qmp.Qmp, directory: Path, into: Path | None = None) -> Chains:
    """The same for a QEMU by its control connection."""
    before, modes = agree(control, directory), active(control)
    for chain in before.values():
        _sync(chain.top)  # or the guest would wait while QEMU does it
    tops: dict[str, Layer] = {}
    try:
        after = layers.grow(directory)
        tops = {name: chain.top for name, chain in after.items() if name in before}
        for name, top in tops.items():
            _add(control, name, top, modes[name].cache)
        control.execute("transaction", {"actions": [
            _action(name, before[name].top, top) for name, top in tops.items()
        ]})  # fmt: skip
    except BaseException:
        with suppress(ProaError):
            for name, top in tops.items():
                control.execute("blockdev-del", {"node-name": blocks.node(name, top.number)})
        with suppress(ProaError):
            agree(control, directory)
        raise
    if into is not None:
        layers.share(before, into)
    return before


def _action(name: str, old: Layer, new: Layer) -> dict[str, Any]:
    nodes = {"node": blocks.node(name, old.number), "overlay": blocks.node(name, new.number)}
    return {"type": "blockdev-snapshot", "data": nodes}


def _add(control: qmp.Qmp, name: str, top: Layer, how: Cache) -> None:
    """Make a node of a new overlay, with nothing below yet."""
    opened = layers.open_all(Chain((top,)))
    try:
        sets = tuple(add_descriptor(control, number) for number in opened.descriptors)
        control.execute("blockdev-add", blocks.graph(name, opened, sets, how))
    finally:
        opened.close()


def add_descriptor(control: qmp.Qmp, descriptor: int, *, into: int = -1) -> int:
    """Give QEMU a descriptor, in the set `into` or a new one; the set's number."""
    wanted = {"fdset-id": into} if into >= 0 else {}
    return int(control.execute("add-fd", wanted, descriptor=descriptor)["fdset-id"])


def _sync(layer: Layer) -> None:
    descriptor = layers.open_layer(layer)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Active:
    """What a disk of a running QEMU writes: the number of the layer, and how."""

    number: int
    cache: Cache


def active(control: qmp.Qmp) -> dict[str, Active]:
    """By disk's name, what a running QEMU writes."""
    found: dict[str, Active] = {}
    for item in control.execute("query-block"):
        inserted = item.get("inserted") or {}
        match = _NODE.fullmatch(str(inserted.get("node-name", "")))
        if match:
            mode = inserted["cache"]
            how = Cache(bool(mode["direct"]), not mode["no-flush"], bool(mode["writeback"]))
            found[match[1]] = Active(int(match[2]), how)
    return found


def agree(control: qmp.Qmp, directory: Path) -> Chains:
    """Have the record say what QEMU does: take back overlays that never came into use."""
    recorded = layers.load(directory)
    chains: Chains = {}
    for name, disk in active(control).items():
        if name not in recorded:
            continue
        numbers = [layer.number for layer in recorded[name].layers]
        if disk.number not in numbers:
            raise Corrupt(f"the disk '{name}' is not in the files that its record names")
        chains[name] = Chain(recorded[name].layers[numbers.index(disk.number) :])
    if any(chains[name] != recorded[name] for name in chains):
        layers.save(directory, {**recorded, **chains})
        layers.sweep(directory)
    return chains
