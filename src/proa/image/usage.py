"""What images take of the disk, as `du` counts it: of each its own, and what it shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proa.errors import ProaError
from proa.image.catalog import Image
from proa.image.layer import tree
from proa.image.layer.unpacked import facts_at
from proa.image.layout import Layout


@dataclass(frozen=True)
class ImageUsage:
    """Bytes of the disk: `shared_bytes` are in other images as well, the rest goes with it."""

    size_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Usage:
    """The whole store: `images` by id; `other_bytes` are of no image.

    Of no image are: what the build cache keeps, blobs that were cut off, work in progress.
    `layers` are the unpacked ones by diff id; `alone` those of them that no image has.
    """

    images: dict[str, ImageUsage]
    total_bytes: int
    other_bytes: int
    layers: dict[str, int]
    alone: frozenset[str]


def measure(layout: Layout, images: Iterable[Image]) -> Usage:
    """Look at the disk; a layer that was measured when it was settled is not walked again."""
    parts = {image.id: _parts(layout, image) for image in images}
    sizes = _sizes(layout)
    users = Counter(part for mine in parts.values() for part in mine)
    usage = {}
    for image_id, mine in parts.items():
        shared = sum(sizes.get(part, 0) for part in mine if users[part] > 1)
        usage[image_id] = ImageUsage(sum(sizes.get(part, 0) for part in mine), shared)
    total = sum(sizes.values()) + tree.disk_bytes(layout.partial) + _work(layout)
    own = sum(sizes[part] for part in users if part in sizes)
    unpacked = {part: size for part, size in sizes.items() if part[0] == layout.layers.name}
    layers = {f"sha256:{name}": size for (_, name), size in unpacked.items()}
    alone = frozenset(f"sha256:{part[1]}" for part in unpacked if part not in users)
    return Usage(usage, total, total - own, layers, alone)


Part = tuple[str, str]  # the directory it is in, its name there


def _parts(layout: Layout, image: Image) -> set[Part]:
    blobs = [image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers)]
    blobs += image.known_by
    layers = {(layout.layers.name, digest[7:]) for digest in image.diff_ids}
    disk = (layout.disks.name, layout.disk(image.id).name)
    return layers | {(layout.blobs.name, digest[7:]) for digest in blobs} | {disk}


def _sizes(layout: Layout) -> dict[Part, int]:
    """Bytes of everything that has a name in the store."""
    found = {}
    for directory in (layout.blobs, layout.disks):
        for path in directory.iterdir():
            with suppress(FileNotFoundError):  # collected meanwhile
                found[directory.name, path.name] = path.lstat().st_blocks * 512
    for path in layout.layers.iterdir():
        with suppress(FileNotFoundError):
            found[layout.layers.name, path.name] = _measured(path) or tree.disk_bytes(path)
    return found


def _measured(layer: Path) -> int:
    try:
        facts = facts_at(layer)
    except ProaError:
        return 0
    return facts.disk_bytes if facts is not None else 0


def _work(layout: Layout) -> int:
    try:
        return tree.disk_bytes(layout.temporary)
    except OSError:  # it changes while we look
        return 0
