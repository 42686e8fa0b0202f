"""The disks of a running guest: a new overlay under it in milliseconds, one file again."""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, HostError, NoSpace, ProaError
from proa.isolation.vm import blocks, layers, qmp
from proa.isolation.vm.blocks import Cache
from proa.isolation.vm.layers import Chain, Chains, Layer
from proa.isolation.vm.machine import Machine

_NODE = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,15})\.(\d{1,9})")
_READONLY = "read-only"
_POLL_SECONDS = (0.01, 0.5)


@dataclass(frozen=True)
class Prepared:
    """Overlays that QEMU has open and nobody writes; `before` are the chains as they are."""

    control: qmp.Qmp
    directory: Path
    before: Chains
    tops: dict[str, Layer]


def freeze(machine: Machine, directory: Path, into: Path | None = None) -> Chains:
    """Put an empty overlay under a running guest on every disk; the chains as they were, frozen.

    With `into` they are shared there (`layers.share`).  The guest goes on, and its disks are of
    one moment; it is not asked to write out its caches first.  Whatever is interrupted, the record
    is right: an overlay that is in it and not in use is empty.
    """
    return commit(prepare(machine.qmp, directory), into)


def prepare(control: qmp.Qmp, directory: Path) -> Prepared:
    """All of it that takes time; the guest's writes still go where they went."""
    before, modes = agree(control, directory), active(control)
    for chain in before.values():
        _sync(chain.top)  # or the guest would wait while QEMU does it
    added: dict[str, Layer] = {}
    try:
        after = layers.grow(directory)
        for name in before:
            _add(control, name, after[name].top, modes[name].cache)
            added[name] = after[name].top
            _add_readonly(control, name, before[name].top)
    except BaseException:
        cancel(Prepared(control, directory, before, added))
        raise
    return Prepared(control, directory, before, added)


def commit(prepared: Prepared, into: Path | None = None) -> Chains:
    """Let the guest write the overlays from now on: one exchange with QEMU, of a millisecond."""
    before, control = prepared.before, prepared.control
    actions = [_action(name, before[name].top, top) for name, top in prepared.tops.items()]
    try:
        control.execute("transaction", {"actions": actions})
    except BaseException:
        cancel(prepared)
        raise
    for name in prepared.tops:
        _drop_writable(control, name, before[name].top)
    if into is not None:
        layers.share(before, into)
    return before


def cancel(prepared: Prepared) -> None:
    """Take back what was prepared."""
    with suppress(ProaError):
        for name, top in prepared.tops.items():
            prepared.control.execute("blockdev-del", {"node-name": blocks.node(name, top.number)})
    with suppress(ProaError):
        agree(prepared.control, prepared.directory)


# -- one file again -------------------------------------------------------------------------------


def flatten(control: qmp.Qmp, directory: Path) -> None:
    """Bring all that lies below into the file that a running guest writes, which then is alone.

    The guest goes on.  What is interrupted loses nothing: what was copied is what was below.
    """
    chains = agree(control, directory)
    for name, chain in chains.items():
        if len(chain.layers) == 1:
            continue
        _stream(control, name, chain)
        for layer in chain.layers[1:]:
            _let_go(control, name, layer)
        layers.save(directory, {**layers.load(directory), name: Chain((chain.top,))})
    layers.sweep(directory)


def _stream(control: qmp.Qmp, name: str, chain: Chain) -> None:
    job = f"{name}-flatten"
    top = blocks.node(name, chain.top.number)
    control.execute("block-stream", {"job-id": job, "device": top, "auto-dismiss": False})
    try:
        _wait(control, job)
    finally:
        with suppress(ProaError):
            control.execute("job-dismiss", {"id": job})


def _wait(control: qmp.Qmp, job: str) -> None:
    """Until a job has concluded.  Raises NoSpace or HostError for one that failed."""
    pause = _POLL_SECONDS[0]
    while True:
        found = next(item for item in control.execute("query-jobs") if item["id"] == job)
        if found["status"] == "concluded":
            break
        time.sleep(pause)
        pause = min(pause * 2, _POLL_SECONDS[1])
    if "error" in found:
        kind = NoSpace if os.strerror(errno.ENOSPC) in found["error"] else HostError
        raise kind(f"the disk could not be made one file: {found['error'].lower()}")


def _let_go(control: qmp.Qmp, name: str, layer: Layer) -> None:
    """Have QEMU close a file that is not below the disk any more."""
    with suppress(ProaError):
        number = _set(control, name, layer.number)
        with suppress(ProaError):  # those made within another go with it
            control.execute("blockdev-del", {"node-name": blocks.node(name, layer.number)})
        control.execute("remove-fd", {"fdset-id": number})


# -- parts of freezing ----------------------------------------------------------------------------


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
    """Give QEMU a descriptor: in a new set, or for reading only in that of `into`; its number."""
    wanted = {"fdset-id": into, "opaque": _READONLY} if into >= 0 else {}
    return int(control.execute("add-fd", wanted, descriptor=descriptor)["fdset-id"])


def _add_readonly(control: qmp.Qmp, name: str, layer: Layer) -> None:
    """Let QEMU open a file again for reading only, which it does once there is one above."""
    descriptor = layers.open_layer(layer)
    try:
        add_descriptor(control, descriptor, into=_set(control, name, layer.number))
    finally:
        os.close(descriptor)


def _drop_writable(control: qmp.Qmp, name: str, layer: Layer) -> None:
    """Take the descriptor that can write from QEMU: others may have this file by now."""
    number = _set(control, name, layer.number)
    for item in control.execute("query-fdsets"):
        if item["fdset-id"] != number:
            continue
        for known in item["fds"]:
            if known.get("opaque") != _READONLY:
                control.execute("remove-fd", {"fdset-id": number, "fd": known["fd"]})


def _set(control: qmp.Qmp, name: str, number: int) -> int:
    """The set that a layer's file is in."""
    wanted = blocks.file_node(name, number)
    for item in control.execute("query-named-block-nodes", {"flat": True}):
        if item["node-name"] == wanted:
            return int(item["file"].rpartition("/")[2])
    raise Corrupt(f"qemu has no '{wanted}'")


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
