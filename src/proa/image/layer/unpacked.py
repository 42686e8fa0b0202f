"""Unpacked layers: made from blobs when first needed, shared by every image that has them."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt
from proa.host import files
from proa.image.layer import tree, unpack
from proa.image.layer.stream import STANDARD_BOUNDS, Bounds, Hashed, decompressed
from proa.image.layer.unpack import Unpacked
from proa.image.layout import Layout
from proa.image.manifest import Descriptor

_FACTS = "layer.json"
_ROOT = "root"


@dataclass(frozen=True)
class Facts:
    """What is known of an unpacked layer: `layer.json`.

    `size_bytes` are of its files; `hides` says whether it hides anything of layers below.
    `media_type`, `digest` and `size` describe the blob it was made with.
    """

    size_bytes: int
    hides: bool
    media_type: str = ""
    digest: str = ""
    size: int = 0

    @property
    def blob(self) -> Descriptor | None:
        """The blob it was made with; None when nobody noted it."""
        return Descriptor(self.media_type, self.digest, self.size) if self.digest else None


def write_facts(made: Path, unpacked: Unpacked, blob: Descriptor | None) -> Facts:
    """Note the facts of the layer whose files are in `made`/root."""
    facts = Facts(unpacked.size_bytes, unpacked.hides)
    if blob is not None:
        facts = Facts(facts.size_bytes, facts.hides, blob.media_type, blob.digest, blob.size)
    files.atomic_write(made / _FACTS, json.dumps(vars(facts)).encode())
    return facts


def unpack_stream(plain: Hashed, made: Path) -> Unpacked:
    """Unpack a layer's tar into the new directory `made` and read the stream to its end."""
    root, trash = made / _ROOT, made / "trash"
    for directory in (made, root, trash):
        directory.mkdir(mode=0o700)
    root.chmod(0o755)
    unpacked = unpack.unpack(plain, root, trash)
    plain.drain()
    files.remove_tree(trash)
    return unpacked


def unpack_blob(
    blob: Path, diff_id: str, made: Path, bounds: Bounds = STANDARD_BOUNDS,
    descriptor: Descriptor | None = None,
) -> Facts:  # fmt: skip
    """Unpack a layer's blob into the new directory `made`; its plain bytes must be `diff_id`."""
    with blob.open("rb", buffering=0) as file, decompressed(file, bounds) as plain:
        hashed = Hashed(plain)
        unpacked = unpack_stream(hashed, made)
    _check(hashed, diff_id)
    return write_facts(made, unpacked, descriptor)


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

    def root(self, diff_id: str, blob: Descriptor) -> Path:
        """The layer's files, unpacked from its blob now when they are not yet."""
        final = self._layout.layer(diff_id)
        if not final.exists():
            with self._guard:
                lock = self._locks[diff_id]
            with lock:
                if not final.exists():
                    self._unpack(diff_id, blob, final)
        return final / _ROOT

    def _unpack(self, diff_id: str, descriptor: Descriptor, final: Path) -> None:
        with tree.reporting(f"unpack layer '{diff_id[7:19]}'"), self._layout.workspace() as work:
            blob = self._layout.blob(descriptor.digest)
            if not blob.exists():
                raise Corrupt(f"blob '{descriptor.digest}' is missing")
            unpack_blob(blob, diff_id, work / "layer", descriptor=descriptor)
            with self._layout.lock():
                self._layout.move_in(work / "layer", final)

    def facts(self, diff_id: str) -> Facts:
        """What is known about an unpacked layer."""
        found = facts_at(self._layout.layer(diff_id))
        if found is None:
            raise Corrupt(f"layer '{diff_id}' is not unpacked")
        return found


def facts_at(directory: Path) -> Facts | None:
    """The facts about an unpacked layer; None when there is none."""
    try:
        return Facts(**json.loads((directory / _FACTS).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Corrupt(
            f"unpacked layer '{directory.name[:12]}' is damaged: {error}",
            hint=f"remove '{directory}' and it is unpacked again",
        ) from error
