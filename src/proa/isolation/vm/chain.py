"""The disks of a running guest: a new overlay under it in milliseconds, one file again."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, HostError, NoSpace, ProaError
from proa.isolation.vm import blocks, layers, qmp
from proa.isolation.vm.blocks import Cache
from proa.isolation.vm.layers import Chain, Chains, Layer
from proa.isolation.vm.machine import Machine

_NODE = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,15})\.(\d{1,9})")
STOPPED = "stopped"  # a file in the instance's directory while the engine keeps its vm stopped
FLATTENING = "-flatten"
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
    _drop_unused(control, before)
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


def _drop_unused(control: qmp.Qmp, chains: Chains) -> None:
    """Rid QEMU of overlays that an engine prepared before it was killed."""
    used = {blocks.node(name, layer.number) for name in chains for layer in chains[name].layers}
    for item in control.execute("query-named-block-nodes", {"flat": True}):
        found = str(item["node-name"])
        match = _NODE.fullmatch(found)
        if match and match[1] in chains and found not in used:
            with suppress(ProaError):  # one that is above it goes first, or it is in use
                control.execute("blockdev-del", {"node-name": found})


def cancel(prepared: Prepared) -> None:
    """Take back what was prepared."""
    with suppress(ProaError):
        for name, top in prepared.tops.items():
            prepared.control.execute("blockdev-del", {"node-name": blocks.node(name, top.number)})
    with suppress(ProaError):
        agree(prepared.control, prepared.directory)


# -- one file again -------------------------------------------------------------------------------


def flatten(machine: Machine, directory: Path) -> None:
    """Copy each disk of a running guest into one raw file, which it then writes.

    The guest goes on meanwhile and stands still for the moment of the change.  What is interrupted
    loses nothing: until the record names the new file, nothing was written to it alone.
    """
    control = machine.qmp
    modes = active(control)
    for name, chain in agree(control, directory).items():
        if len(chain.layers) > 1:
            _flatten(control, directory, (name, chain), modes[name].cache)
    layers.sweep(directory)


def _flatten(control: qmp.Qmp, directory: Path, disk: tuple[str, Chain], how: Cache) -> None:
    name, chain = disk
    known = layers.load(directory)
    target = layers.raw(directory, known, layers.virtual_bytes(chain.top))
    job = name + FLATTENING
    _add(control, name, target, how)
    try:
        with _mirrored(control, job, name, (chain.top, target)), stopped(control, directory):
            control.execute("block-job-complete", {"device": job})
            _wait(control, job, "concluded")
            _sync(target)
            layers.save(directory, {**known, name: Chain((target,))})
    finally:
        _tidy(control, directory)


@contextmanager
def _mirrored(control: qmp.Qmp, job: str, name: str, ends: tuple[Layer, Layer]) -> Iterator[None]:
    """While all that is written goes to both ends, which are the same."""
    source, target = (blocks.node(name, layer.number) for layer in ends)
    control.execute(
        "blockdev-mirror",
        {"job-id": job, "device": source, "target": target, "sync": "full", "auto-dismiss": False},
    )
    try:
        _wait(control, job, "ready")
        yield
    except BaseException:
        with suppress(ProaError):
            control.execute("block-job-cancel", {"device": job, "force": True})
            _wait(control, job, "concluded")
        raise
    finally:
        with suppress(ProaError):
            control.execute("job-dismiss", {"id": job})


@contextmanager
def stopped(control: qmp.Qmp, directory: Path) -> Iterator[None]:
    """A guest that stands still; a mark lets an engine to come know that nobody else wants it."""
    if not control.execute("query-status")["running"]:
        yield
        return
    mark = directory / STOPPED
    mark.touch()
    try:
        control.execute("stop")
        yield
    finally:
        control.execute("cont")
        mark.unlink()


def _wait(control: qmp.Qmp, job: str, state: str) -> None:
    """Until a job is `ready` or `concluded`.  Raises NoSpace or HostError for one that failed."""
    pause = _POLL_SECONDS[0]
    while True:
        found = next(item for item in control.execute("query-jobs") if item["id"] == job)
        if found["status"] in (state, "concluded"):
            break
        time.sleep(pause)
        pause = min(pause * 2, _POLL_SECONDS[1])
    if "error" in found:
        kind = NoSpace if os.strerror(errno.ENOSPC) in found["error"] else HostError
        raise kind(f"the disk could not be made one file: {found['error'].lower()}")


def recovered(machine: Machine, directory: Path) -> None:
    """End what an engine now gone had begun with the disks of a running guest."""
    control = machine.qmp
    for job in control.execute("query-jobs"):
        if str(job["id"]).endswith(FLATTENING):
            with suppress(ProaError):
                control.execute("block-job-cancel", {"device": job["id"], "force": True})
            with suppress(ProaError):
                _wait(control, job["id"], "concluded")
            with suppress(ProaError):
                control.execute("job-dismiss", {"id": job["id"]})
    _tidy(control, directory)
    for name, chain in agree(control, directory).items():
        for layer in chain.layers[1:]:
            with suppress(ProaError):  # of an engine before these names
                _drop_writable(control, name, layer)


def _tidy(control: qmp.Qmp, directory: Path) -> None:
    """Have QEMU close the files that are not in its disks' chains (any more), and remove them."""
    chains = agree(control, directory)
    used = {blocks.node(name, layer.number) for name in chains for layer in chains[name].layers}
    known = control.execute("query-named-block-nodes", {"flat": True})
    files = {str(item["node-name"]): str(item.get("file", "")) for item in known}
    for found in sorted(files, reverse=True):
        match = _NODE.fullmatch(found)
        if match is None or found in used or match[1] not in chains:
            continue
        with suppress(ProaError):  # those made within another go with it
            control.execute("blockdev-del", {"node-name": found})
        with suppress(ProaError, ValueError):
            number = int(files[f"{found}f"].rpartition("/")[2])
            control.execute("remove-fd", {"fdset-id": number})
    layers.sweep(directory)


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
    wanted = {"fdset-id": into, "opaque": blocks.READONLY} if into >= 0 else {}
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
            if known.get("opaque") != blocks.READONLY:
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
    format: str


def active(control: qmp.Qmp) -> dict[str, Active]:
    """By disk's name, what a running QEMU writes."""
    found: dict[str, Active] = {}
    for item in control.execute("query-block"):
        inserted = item.get("inserted") or {}
        match = _NODE.fullmatch(str(inserted.get("node-name", "")))
        if match:
            mode = inserted["cache"]
            how = Cache(bool(mode["direct"]), not mode["no-flush"], bool(mode["writeback"]))
            found[match[1]] = Active(int(match[2]), how, str(inserted["drv"]))
    return found


def agree(control: qmp.Qmp, directory: Path) -> Chains:
    """Have the record say what QEMU does: take back overlays that never came into use."""
    recorded = layers.load(directory)
    chains: Chains = {}
    for name, disk in active(control).items():
        if name not in recorded:
            continue
        numbers = [layer.number for layer in recorded[name].layers]
        if disk.number in numbers:
            chains[name] = Chain(recorded[name].layers[numbers.index(disk.number) :])
            continue
        path = directory / layers.DIRECTORY / str(disk.number)
        if disk.format != "raw" or not path.exists():
            raise Corrupt(f"the disk '{name}' is not in the files that its record names")
        chains[name] = Chain((Layer(path, "raw"),))  # a flattening that came to its end unrecorded
    if any(chains[name] != recorded[name] for name in chains):
        layers.save(directory, {**recorded, **chains})
        layers.sweep(directory)
    return chains
