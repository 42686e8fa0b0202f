"""What the SDK tells of sizes and costs: frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One share of a whole; `shared` when others on the host use it, too."""

    name: str
    bytes: int
    shared: bool = False
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """Where the memory is that an instance costs the host; the `parts` sum up to `pss_bytes`.

    `beside` is there as well, but not this instance's alone: not in any sum.  `processes` are the
    host's, `cpu_ns` what all of them have used since they were started.
    """

    parts: tuple[Part, ...]
    beside: tuple[Part, ...]
    pss_bytes: int
    private_bytes: int
    shared_bytes: int
    processes: int
    cpu_ns: int


@dataclass(frozen=True)
class LayerSize:
    """One layer, lowest first; `shared` when another image has it.

    A `plain` one is kept as it is: its compressed bytes are the blob's, unless they were measured.
    """

    diff_id: str
    digest: str
    media_type: str
    compressed_bytes: int
    unpacked_bytes: int
    shared: bool
    plain: bool = False


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
        _parts(answer["Parts"]), _parts(answer["Beside"]), answer["PssBytes"],
        answer["PrivateBytes"], answer["SharedBytes"], answer["Processes"], answer["CpuNs"],
    )  # fmt: skip


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
