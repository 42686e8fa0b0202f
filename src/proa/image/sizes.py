"""How large an image is, and where its bytes went: by package, else by directory.

Bytes are blocks of the disk, as `du` counts them.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proa.costs import LayerSize
from proa.errors import Corrupt
from proa.image.catalog import Image
from proa.image.layer import tree
from proa.image.layer.mounted import mounted
from proa.image.layer.unpacked import facts_at
from proa.image.machine.ledger import unmerged
from proa.image.sbom import owners
from proa.image.sbom.component import short
from proa.image.sbom.reading import MAXIMUM_ENTRIES

ROWS_MAXIMUM = 30
BLOCK = 512
HIDDEN = "hidden in lower layers"
DIRECTORIES = "directories"
OTHER = "others"
NAMES_MAXIMUM = 100_000
REST = "the rest"


@dataclass(frozen=True)
class Row:
    """One line of a ledger."""

    name: str
    bytes: int
    note: str = ""


def layer_sizes(
    image: Image, roots: Mapping[str, Path], others: Iterable[Image]
) -> tuple[LayerSize, ...]:
    """The layers, lowest first; `roots` are the unpacked ones by diff id."""
    known = {diff_id for other in others if other.id != image.id for diff_id in other.diff_ids}
    measured = {diff_id: _disk_bytes(root.parent) for diff_id, root in roots.items()}
    rows = []
    for diff_id, blob in zip(image.diff_ids, image.manifest.layers, strict=True):
        size = measured.pop(diff_id, 0)  # one that is there twice is on the disk once
        plain = blob.media_type.endswith("tar")
        rows.append(
            LayerSize(
                diff_id, blob.digest, blob.media_type, blob.size, size, diff_id in known, plain
            )
        )  # fmt: skip
    return tuple(rows)


def _disk_bytes(layer: Path) -> int:
    with suppress(Corrupt):
        facts = facts_at(layer)
        if facts is not None and facts.disk_bytes:
            return facts.disk_bytes
    return tree.disk_bytes(layer)


def ledger(layers: Sequence[Path], unpacked_bytes: int, work: Path) -> tuple[Row, ...]:
    """Where the bytes of unpacked layers (topmost first) went; sums up to all of them."""
    with mounted(layers) as root:
        known = owners.of(root, work)
        counted, kind = _count(root, known)
    found = rows(counted, kind)
    hidden = unpacked_bytes - sum(row.bytes for row in found)
    note = "replaced or removed by layers above, and the store's own notes"
    return (*found, Row(HIDDEN, hidden, note)) if hidden else found


def _count(root: int, known: Mapping[bytes, str]) -> tuple[Counter[str], str]:
    """Bytes by package, or by directory where no package is known; a link counts once."""
    counted: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    for number, (path, status) in enumerate(_walk(root)):
        if number > MAXIMUM_ENTRIES:
            raise Corrupt(f"the image has more than '{MAXIMUM_ENTRIES}' names")
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        if not status.st_blocks:
            continue
        if stat.S_ISDIR(status.st_mode):
            name = DIRECTORIES
        elif known:
            name = known.get(path) or known.get(os.fsencode(unmerged(os.fsdecode(path)))) or OTHER
        else:
            name = directory(path)
        if len(counted) >= NAMES_MAXIMUM and name not in counted:
            name = OTHER
        counted[name] += status.st_blocks * BLOCK
    return counted, "package" if known else "directory"


def directory(path: bytes) -> str:
    """The topmost directory a file is in, of /usr the one below."""
    parts = path.split(b"/")
    depth = 2 if parts[0] in (b"usr", b"var") else 1
    return short("/" + os.fsdecode(b"/".join(parts[: min(depth, len(parts) - 1)])))


def _walk(root: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """Everything below a directory, relative paths; the directory itself is empty."""
    yield b"", os.stat(root)
    waiting = [b""]
    while waiting:
        above = waiting.pop()
        try:
            fd = tree.open_directory(root, above)
        except OSError:
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    path = above + b"/" + name if above else name
                    status = entry.stat(follow_symlinks=False)
                    yield path, status
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(path)
        finally:
            os.close(fd)


def rows(counted: Counter[str], kind: str) -> tuple[Row, ...]:
    """The largest, then one row for all the others."""
    notes = {OTHER: f"of no {kind}", DIRECTORIES: ""}
    found = [Row(name, size, notes.get(name, kind)) for name, size in counted.most_common()]
    listed, left = found[: ROWS_MAXIMUM - 2], found[ROWS_MAXIMUM - 2 :]
    if len(left) > 1:
        note = f"{len(left)} more"
        return (*listed, Row(REST, sum(row.bytes for row in left), note))
    return (*listed, *left)
