"""Unpacked layers: made from blobs when first needed, shared by every image that has them."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from proa.errors import Corrupt, HostError, ProaError
from proa.host import files
from proa.image.layer import tree, unpack
from proa.image.layer.stream import CHUNK, STANDARD_BOUNDS, Bounds, Hashed, Source, decompressed
from proa.image.layer.unpack import Unpacked
from proa.image.layout import Layout
from proa.image.manifest import Descriptor

_FACTS = "layer.json"
_ROOT = "root"


@cache
def this_boot() -> str:
    """The kernel's name for the time since it started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Facts:
    """What is known of an unpacked layer: `layer.json`.

    `size_bytes` are of its files; `hides` says whether it hides anything of layers below.
    `media_type`, `digest` and `size` describe the blob it was made with.  `boot` is the boot in
    which it was made, until all of it is known to be on the disk: after a power cut such a layer
    may have holes, and is made anew.  `disk_bytes` is what it takes of the disk, once known.
    """

    size_bytes: int
    hides: bool
    media_type: str = ""
    digest: str = ""
    size: int = 0
    boot: str = ""
    disk_bytes: int = 0

    @property
    def whole(self) -> bool:
        """Whether every byte of it is there."""
        return self.boot in ("", this_boot())

    @property
    def blob(self) -> Descriptor | None:
        """The blob it was made with; None when nobody noted it."""
        return Descriptor(self.media_type, self.digest, self.size) if self.digest else None


def write_facts(made: Path, unpacked: Unpacked, blob: Descriptor | None) -> Facts:
    """Note the facts of the layer whose files are in `made`/root."""
    facts = Facts(unpacked.size_bytes, unpacked.hides, boot=this_boot())
    if blob is not None:
        facts = replace(facts, media_type=blob.media_type, digest=blob.digest, size=blob.size)
    _write(made, facts)
    return facts


def _write(directory: Path, facts: Facts, durable: bool = False) -> None:
    files.atomic_write(directory / _FACTS, json.dumps(vars(facts)).encode(), durable=durable)


def unpack_stream(plain: Source, made: Path) -> Unpacked:
    """Unpack a layer's tar into the new directory `made` and read the stream to its end."""
    root, trash = made / _ROOT, made / "trash"
    for directory in (made, root, trash):
        directory.mkdir(mode=0o700)
    root.chmod(0o755)
    unpacked = unpack.unpack(plain, root, trash)
    while plain.read(CHUNK):  # what follows the archive belongs to the digest
        pass
    files.remove_tree(trash)
    return unpacked


def unpack_blob(blob: Path, diff_id: str, made: Path, bounds: Bounds = STANDARD_BOUNDS) -> Unpacked:
    """Unpack a layer's blob into the new directory `made`; its plain bytes must be `diff_id`."""
    with blob.open("rb", buffering=0) as file, decompressed(file, bounds) as plain:
        hashed = Hashed(plain)
        unpacked = unpack_stream(hashed, made)
    _check(hashed, diff_id)
    return unpacked


def unpack_plain(blob: Path, made: Path) -> Unpacked:
    """The same for a blob that is no compressed one, and known to be right."""
    with blob.open("rb", buffering=0) as file:
        return unpack_stream(file, made)


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
        self._settling = threading.Lock()
        self._queued = False
        self._known: set[str] = set()  # to be whole

    def root(self, diff_id: str, blob: Descriptor) -> Path:
        """The layer's files, unpacked from its blob now when they are not there or not whole."""
        final = self._layout.layer(diff_id)
        if not self.whole(diff_id):
            with self._guard:
                lock = self._locks[diff_id]
            with lock:
                if not self.whole(diff_id):
                    self._unpack(diff_id, blob, final)
        return final / _ROOT

    def whole(self, diff_id: str) -> bool:
        """Whether the layer is unpacked, and survived the last power cut."""
        directory = self._layout.layer(diff_id)
        if diff_id in self._known:
            return directory.exists()
        try:
            facts = facts_at(directory)
        except Corrupt:
            return False
        if facts is None or not facts.whole:
            return False
        self._known.add(diff_id)
        return True

    def _unpack(self, diff_id: str, descriptor: Descriptor, final: Path) -> None:
        with tree.reporting(f"unpack layer '{diff_id[7:19]}'"), self._layout.workspace() as work:
            blob = self._layout.blob(descriptor.digest)
            if not blob.exists():
                raise Corrupt(f"blob '{descriptor.digest}' is missing")
            unpacked = unpack_blob(blob, diff_id, work / "layer")
            write_facts(work / "layer", unpacked, descriptor)
            with self._layout.lock():
                if final.exists() and not self.whole(diff_id):
                    final.rename(work / "damaged")
                self._layout.move_in(work / "layer", final)

    def settle(self) -> None:
        """Bring what was unpacked in this boot to the disk, and note that it is there."""
        with self._settling:
            self._settle()

    def _settle(self) -> None:
        waiting = []
        for directory in list(self._layout.layers.iterdir()):
            with suppress(Corrupt):
                facts = facts_at(directory)
                if facts is not None and facts.boot == this_boot():
                    waiting.append((directory, facts))
        if waiting:
            files.sync_all(self._layout.layers)
        for directory, facts in waiting:
            with suppress(OSError, HostError):  # collected meanwhile
                settled = replace(facts, boot="", disk_bytes=tree.disk_bytes(directory))
                with self._layout.lock():
                    _write(directory, settled, durable=True)

    def settle_soon(self) -> None:
        """The same in the background; what a killed process leaves is settled by the next."""
        if not self._queued:
            self._queued = True
            threading.Thread(target=self._settle_quietly, name="settle", daemon=True).start()

    def _settle_quietly(self) -> None:
        with self._settling, suppress(OSError, ProaError):  # the store may be gone by now
            self._queued = False
            self._settle()

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
