"""What the SDK tells of sizes and costs: frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proa.costs import LayerSize, Memory, Part


@dataclass(frozen=True)
class Sizes:
    """How large an image or a disk is; `ledger` sums up to `unpacked_bytes`, of a disk that was
    read to what its file systems say is in use.

    `compressed_bytes` is what its layers are as blobs (see their media types), `unique_bytes` and
    `shared_bytes` are of the unpacked ones.  `vm` is what running it as a vm adds on the disk.
    `virtual_bytes` is a disk's size as a machine sees it.
    """

    compressed_bytes: int
    unpacked_bytes: int
    unique_bytes: int
    shared_bytes: int
    layers: tuple[LayerSize, ...]
    ledger: tuple[Part, ...]
    vm: tuple[Part, ...]
    virtual_bytes: int = 0


@dataclass(frozen=True)
class CooledPart:
    """Files of one kind; `before` and `after` are bytes of them in the page cache."""

    name: str
    files: int
    bytes: int
    before: int
    after: int
    note: str = ""


@dataclass(frozen=True)
class Cooled:
    """What was in the page cache before and after: bytes."""

    parts: tuple[CooledPart, ...]
    before: int
    after: int


def memory(answer: Mapping[str, Any]) -> Memory:
    """Of `GET /proa/instances/{id}/memory`."""
    return Memory(
        _parts(answer["Parts"]), _parts(answer["Beside"]), answer["Processes"], answer["CpuNs"]
    )


def sizes(answer: Mapping[str, Any]) -> Sizes:
    """Of `GET /proa/images/{name}/sizes`."""
    layers = tuple(
        LayerSize(
            item["DiffId"],
            item["Digest"],
            item["MediaType"],
            item["CompressedBytes"],
            item["UnpackedBytes"],
            item["Shared"],
            item["Plain"],
        )
        for item in answer["Layers"]
    )
    return Sizes(
        answer["CompressedBytes"], answer["UnpackedBytes"], answer["UniqueBytes"],
        answer["SharedBytes"], layers, _parts(answer["Ledger"]), _parts(answer["Vm"]),
        answer.get("VirtualBytes", 0),
    )  # fmt: skip


def cooled(answer: Mapping[str, Any]) -> Cooled:
    """Of `POST /proa/images/{name}/cool`."""
    parts = tuple(
        CooledPart(
            item["Name"],
            item["Files"],
            item["Bytes"],
            item["ResidentBefore"],
            item["ResidentAfter"],
            item["Note"],
        )
        for item in answer["Parts"]
    )
    return Cooled(parts, answer["ResidentBefore"], answer["ResidentAfter"])


def _parts(items: Any) -> tuple[Part, ...]:
    return tuple(
        Part(item["Name"], item["Bytes"], item.get("Shared", False), item["Note"]) for item in items
    )
