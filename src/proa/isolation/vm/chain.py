"""Chains of disk files in QEMU: its command line, and a new overlay under a running guest.

Every file is a descriptor in a set of its own, every node of the graph is named by us
(`NAME.NUMBER`, the number of the layer), and what lies below is always said, so that QEMU reads
nothing out of headers.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, Invalid, ProaError
from proa.isolation.vm import layers, qmp
from proa.isolation.vm.layers import Chain, Chains, Layer, Opened
from proa.isolation.vm.machine import Machine

_NODE = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,15})\.(\d{1,9})")


@dataclass(frozen=True)
class Cache:
    """A cache mode, in QEMU's terms: `direct` passes by the host's page cache, `flush` honours the
    guest's flushes, `write_back` tells the guest that it must flush."""

    direct: bool
    flush: bool
    write_back: bool


CACHES = {
    "writeback": Cache(direct=False, flush=True, write_back=True),
    "none": Cache(direct=True, flush=True, write_back=True),
    "writethrough": Cache(direct=False, flush=True, write_back=False),
    "unsafe": Cache(direct=False, flush=False, write_back=True),
}
DEFAULT_CACHE = "writeback"


def cache(mode: str) -> Cache:
    """A mode by name, empty for the default.  Raises Invalid."""
    try:
        return CACHES[mode or DEFAULT_CACHE]
    except KeyError:
        raise Invalid(
            f"unknown cache mode '{mode}'", hint=f"use one of {', '.join(CACHES)}"
        ) from None


# -- the command line ------------------------------------------------------------------------------


def arguments(name: str, opened: Opened, how: Cache) -> tuple[str, ...]:
    """The descriptors and the graph of one disk; the device follows: `drive=` is `node`'s."""
    sets = [("-add-fd", f"fd={number},set={number}") for number in opened.descriptors]
    graph = json.dumps(_graph(name, opened, opened.descriptors, how), separators=(",", ":"))
    return (*(word for pair in sets for word in pair), "-blockdev", graph)


def node(name: str, number: int) -> str:
    """The node of a layer, which is a device's when it is the top."""
    return f"{name}.{number}"


def device(how: Cache) -> str:
    """What a device of this disk has among its properties, with a comma before."""
    return "" if how.write_back else ",write-cache=off"


def _graph(
    name: str, opened: Opened, sets: tuple[int, ...], how: Cache, *, writable: bool = True
) -> dict[str, Any] | None:
    if not opened.descriptors:
        return None
    format, number = opened.formats[0], opened.numbers[0]
    options = {"direct": how.direct, "no-flush": not how.flush}
    found: dict[str, Any] = {
        "driver": format, "node-name": node(name, number), "read-only": not writable,
        "discard": "unmap", "detect-zeroes": "unmap" if writable else "off", "cache": options,
        "file": {
            "driver": "file", "filename": f"/dev/fdset/{sets[0]}", "locking": "off",
            "discard": "unmap", "aio": "native" if how.direct else "threads", "cache": options,
        },
    }  # fmt: skip
    below = Opened(opened.descriptors[1:], opened.formats[1:], opened.numbers[1:])
    if format in ("qcow2", "vmdk"):
        found["backing"] = _graph(name, below, sets[1:], how, writable=False)
    return found


# -- live ------------------------------------------------------------------------------------------


def freeze(
    machine: Machine, directory: Path, into: Path | None = None, *, how: Cache | None = None
) -> Chains:
    """Put an empty overlay under a running guest on every disk; the chains as they were, frozen.

    With `into` they are shared there (`layers.share`).  The guest goes on, and its disks are of
    one moment; it is not asked to write out its caches first.  Whatever is interrupted, the record
    is right: an overlay that is in it and not in use is empty.
    """
    return freeze_disks(machine.qmp, directory, into, how or cache(""))


def freeze_disks(control: qmp.Qmp, directory: Path, into: Path | None, how: Cache) -> Chains:
    """The same for a QEMU by its control connection."""
    before = agree(control, directory)
    for chain in before.values():
        _sync(chain.top)  # or the guest would wait while QEMU does it
    tops: dict[str, Layer] = {}
    try:
        after = layers.grow(directory)
        tops = {name: chain.top for name, chain in after.items() if name in before}
        for name, top in tops.items():
            _add(control, name, top, how)
        control.execute("transaction", {"actions": [
            _action(name, before[name].top, top) for name, top in tops.items()
        ]})  # fmt: skip
    except BaseException:
        with suppress(ProaError):
            for name, top in tops.items():
                control.execute("blockdev-del", {"node-name": node(name, top.number)})
        with suppress(ProaError):
            agree(control, directory)
        raise
    if into is not None:
        layers.share(before, into)
    return before


def _action(name: str, old: Layer, new: Layer) -> dict[str, Any]:
    nodes = {"node": node(name, old.number), "overlay": node(name, new.number)}
    return {"type": "blockdev-snapshot", "data": nodes}


def _add(control: qmp.Qmp, name: str, top: Layer, how: Cache) -> None:
    """Make a node of a new overlay, with nothing below yet."""
    opened = layers.open_all(Chain((top,)))
    try:
        sets = tuple(add_descriptor(control, number) for number in opened.descriptors)
        control.execute("blockdev-add", _graph(name, opened, sets, how))
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


def active(control: qmp.Qmp) -> dict[str, int]:
    """By disk, the number of the layer that a running QEMU writes."""
    found: dict[str, int] = {}
    for item in control.execute("query-block"):
        match = _NODE.fullmatch(str((item.get("inserted") or {}).get("node-name", "")))
        if match:
            found[match[1]] = int(match[2])
    return found


def agree(control: qmp.Qmp, directory: Path) -> Chains:
    """Have the record say what QEMU does: take back overlays that never came into use."""
    recorded = layers.load(directory)
    chains: Chains = {}
    for name, number in active(control).items():
        if name not in recorded:
            continue
        numbers = [layer.number for layer in recorded[name].layers]
        if number not in numbers:
            raise Corrupt(f"the disk '{name}' is not in the files that its record names")
        chains[name] = Chain(recorded[name].layers[numbers.index(number) :])
    if any(chains[name] != recorded[name] for name in chains):
        layers.save(directory, {**recorded, **chains})
        layers.sweep(directory)
    return chains
