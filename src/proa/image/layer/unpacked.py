"""Unpacked layers: made from blobs when first needed, shared by every image that has them."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from pathlib import Path

from proa.errors import Corrupt
from proa.host import files
from proa.image.layer import tree, unpack
from proa.image.layer.stream import STANDARD_BOUNDS, Bounds, Hashed, decompressed
from proa.image.layer.unpack import Unpacked
from proa.image.layout import Layout

_FACTS = "layer.json"
_ROOT = "root"


def unpack_blob(blob: Path, diff_id: str, made: Path, bounds: Bounds = STANDARD_BOUNDS) -> Unpacked:
    """Unpack a layer's blob into the new directory `made`; its plain bytes must be `diff_id`."""
    root, trash = made / _ROOT, made / "trash"
    for directory in (made, root, trash):
        directory.mkdir(mode=0o700)
    root.chmod(0o755)
    with blob.open("rb", buffering=0) as file, decompressed(file, bounds) as plain:
        hashed = Hashed(plain)
        facts = unpack.unpack(hashed, root, trash)
        hashed.drain()
    _check(hashed, diff_id)
    files.remove_tree(trash)
    files.atomic_write(made / _FACTS, json.dumps(vars(facts)).encode())
    return facts


def verify(blob: Path, diff_id: str, bounds: Bounds) -> None:
    """Only check that a layer's blob is `diff_id` when unfolded."""
    with blob.open("rb", buffering=0) as file, decompressed(file, bounds) as plain:
        hashed = Hashed(plain)
        hashed.drain()
    _check(hashed, diff_id)


def _check(hashed: Hashed, diff_id: str) -> None:
    if hashed.digest != diff_id:
        raise Corrupt(
            f"layer '{diff_id[7:19]}' has digest '{hashed.digest}' but '{diff_id}' was promised"
        )


class Layers:
    """The unpacked layers of a store; safe for many threads and processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._guard = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def has(self, diff_id: str) -> bool:
        """Whether the layer is unpacked already."""
        return self._layout.layer(diff_id).exists()

    def root(self, diff_id: str, blob_digest: str) -> Path:
        """The layer's files, unpacked now when they are not yet."""
        final = self._layout.layer(diff_id)
        if not final.exists():
            with self._guard:
                lock = self._locks[diff_id]
            with lock:
                if not final.exists():
                    self._unpack(diff_id, blob_digest, final)
        return final / _ROOT

    def _unpack(self, diff_id: str, blob_digest: str, final: Path) -> None:
        with tree.reporting(f"unpack layer '{diff_id[7:19]}'"), self._layout.workspace() as work:
            blob = self._layout.blob(blob_digest)
            if not blob.exists():
                raise Corrupt(f"blob '{blob_digest}' is missing")
            unpack_blob(blob, diff_id, work / "layer")
            with self._layout.lock():
                self._layout.move_in(work / "layer", final)

    def facts(self, diff_id: str) -> Unpacked:
        """What is known about an unpacked layer."""
        found = facts_at(self._layout.layer(diff_id))
        if found is None:
            raise Corrupt(f"layer '{diff_id}' is not unpacked")
        return found


def facts_at(directory: Path) -> Unpacked | None:
    """The facts about an unpacked layer; None when there is none."""
    try:
        return Unpacked(**json.loads((directory / _FACTS).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Corrupt(
            f"unpacked layer '{directory.name[:12]}' is damaged: {error}",
            hint=f"remove '{directory}' and it is unpacked again",
        ) from error
