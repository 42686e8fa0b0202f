"""Chains of disk files as QEMU's block graph, and how it reads and writes them.

Every file is a descriptor in a set of its own, every node is named by us (`NAME.NUMBER`, the number
of the layer), and what lies below is always said, so that QEMU reads nothing out of headers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from proa.errors import Invalid
from proa.isolation.vm.layers import Opened


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
WRITEBACK = CACHES[DEFAULT_CACHE]
READONLY = "read-only"  # how descriptors that cannot write are marked in QEMU's sets


def cache(mode: str) -> Cache:
    """A mode by name, empty for the default.  Raises Invalid."""
    try:
        return CACHES[mode or DEFAULT_CACHE]
    except KeyError:
        raise Invalid(
            f"unknown cache mode '{mode}'", hint=f"use one of {', '.join(CACHES)}"
        ) from None


def arguments(name: str, opened: Opened, how: Cache) -> tuple[str, ...]:
    """The descriptors and the graph of one disk; the device follows: `drive=` is `node`'s."""
    marks = ("", *(f",opaque={READONLY}" for _ in opened.descriptors[1:]))
    sets = [
        ("-add-fd", f"fd={number},set={number}{mark}")
        for number, mark in zip(opened.descriptors, marks, strict=True)
    ]
    nodes = json.dumps(graph(name, opened, opened.descriptors, how), separators=(",", ":"))
    return (*(word for pair in sets for word in pair), "-blockdev", nodes)


def node(name: str, number: int) -> str:
    """The node of a layer, which is a device's when it is the top."""
    return f"{name}.{number}"


def file_node(name: str, number: int) -> str:
    """The node of a layer's file, below its format."""
    return f"{node(name, number)}f"


def device(how: Cache) -> str:
    """What a device of this disk has among its properties, with a comma before."""
    return "" if how.write_back else ",write-cache=off"


def graph(
    name: str, opened: Opened, sets: tuple[int, ...], how: Cache, *, writable: bool = True
) -> dict[str, Any] | None:
    """The nodes of a chain whose files are in these sets; None below the last."""
    if not opened.descriptors:
        return None
    format, number = opened.formats[0], opened.numbers[0]
    options = {"direct": how.direct, "no-flush": not how.flush}
    found: dict[str, Any] = {
        "driver": format, "node-name": node(name, number), "read-only": not writable,
        "discard": "unmap", "detect-zeroes": "unmap" if writable else "off", "cache": options,
        "file": {
            "driver": "file", "node-name": file_node(name, number),
            "filename": f"/dev/fdset/{sets[0]}", "locking": "off", "discard": "unmap",
            "aio": "native" if how.direct else "threads", "cache": options,
        },
    }  # fmt: skip
    below = Opened(opened.descriptors[1:], opened.formats[1:], opened.numbers[1:])
    if format in ("qcow2", "vmdk"):
        found["backing"] = graph(name, below, sets[1:], how, writable=False)
    return found
