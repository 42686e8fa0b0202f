"""One layer on its way into the store: read, checked, kept and unpacked in one pass."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt, NoSpace
from proa.image.assembly import Shelves
from proa.image.layer import unpacked
from proa.image.layer.stream import Hashed, decompressed
from proa.image.layer.unpack import Unpacked
from proa.image.manifest import Descriptor
from proa.image.progress import Progress, Step
from proa.image.registry import partial
from proa.image.registry.blobs import CHUNK, Blob
from proa.image.registry.client import Registry
from proa.image.registry.partial import Half

_TOLD_SECONDS = 0.1


@dataclass(frozen=True)
class Fetch:
    """Where layers come from."""

    registry: Registry
    repository: str

    def blob(self, layer: Descriptor, mirrored: bool) -> Blob:
        """The layer as a stream."""
        return Blob(self.registry, self.repository, layer, mirrored)


class _Kept:
    """What of a blob was there already, then the rest, which is added to it."""

    def __init__(self, blob: Blob, half: Half, told: Callable[[int], None]) -> None:
        self._blob = blob
        self._half = half
        self._told = told

    def read(self, size: int, /) -> bytes:
        data = self._half.again(size)
        if data:
            self._blob.skip(data)
        else:
            data = self._blob.read(size)
            self._half.add(data)
        self._told(self._blob.offset)
        return data


def _is_whole(blob: Path, layer: Descriptor) -> bool:
    with blob.open("rb", buffering=0) as file:
        hashed = Hashed(file)
        hashed.drain()
    return hashed.digest == layer.digest


class Taker:
    """Takes layers into a store; safe for many threads.

    What it took or found is kept from the collector as long as the workspace `work` lasts;
    `landed` hears of every blob that came.
    """

    def __init__(
        self,
        shelves: Shelves,
        work: Path,
        progress: Progress,
        landed: Callable[[Path], object] = lambda blob: None,
    ) -> None:
        self._shelves = shelves
        self._layout = shelves.layout
        self._work = work
        self._progress = progress
        self._landed = landed
        self.folder = shelves.layout.partial

    def has(self, diff_id: str, layer: Descriptor) -> bool:
        """Whether the store has the layer as this very blob; then it is held, and unpacked."""
        blob = self._layout.blob(layer.digest)
        with self._layout.lock():
            self._layout.hold(self._work, (diff_id, layer.digest))
            if not self._layout.has_blob(layer):
                return False
        try:
            self._shelves.layers.root(diff_id, layer)
            facts = self._shelves.layers.facts(diff_id)
            if layer.digest not in (facts.digest, diff_id):
                unpacked.verify(blob, diff_id, self._shelves.bounds)
        except Corrupt:
            if _is_whole(blob, layer):
                raise
            blob.rename(self._work / secrets.token_hex(8))  # a power cut may have made holes
            return False
        return True

    def found(self, diff_id: str, layer: Descriptor) -> bool:
        """The same, and says so."""
        there = self.has(diff_id, layer)
        short = layer.digest[7:19]
        self._progress(Step("Already exists" if there else "Pulling fs layer", short))
        return there

    def take(self, fetch: Fetch, diff_id: str, layer: Descriptor) -> None:
        """Have the layer in the store: from a registry, unless another was quicker."""
        short = layer.digest[7:19]
        with partial.claimed(self.folder, layer.digest, fetch.registry.transport.check) as half:
            if self.has(diff_id, layer):
                half.empty()
                self._progress(Step("Already exists", short))
                return
            for mirrored in (True, False):
                try:
                    self._take(fetch.blob(layer, mirrored), half, diff_id, layer)
                    break
                except (Corrupt, NoSpace, OSError) as error:
                    again = isinstance(error, Corrupt) and (half.resumed or fetch.registry.mirrored)
                    half.empty()
                    if not mirrored or not again:
                        raise
        self._progress(Step("Pull complete", short))

    def _take(self, blob: Blob, half: Half, diff_id: str, layer: Descriptor) -> None:
        made = self._work / secrets.token_hex(8)
        with closing(blob):
            kept = _Kept(blob, half, self._teller(layer))
            with decompressed(kept, self._shelves.bounds) as unfolded:
                plain = Hashed(unfolded)
                facts = self._unpack(plain, diff_id, made)
            while kept.read(CHUNK):
                pass
        if plain.digest != diff_id:
            raise Corrupt(
                f"layer '{diff_id[7:19]}' has digest '{plain.digest}' but '{diff_id}' was promised"
            )
        self._publish(half, made, facts, (diff_id, layer))

    def _unpack(self, plain: Hashed, diff_id: str, made: Path) -> Unpacked | None:
        """Unpack, or only hash what the store has from another blob."""
        if self._shelves.layers.whole(diff_id):
            plain.drain()
            return None
        return unpacked.unpack_stream(plain, made)

    def _publish(
        self, half: Half, made: Path, facts: Unpacked | None, key: tuple[str, Descriptor]
    ) -> None:
        diff_id, layer = key
        short = layer.digest[7:19]
        self._progress(Step("Verifying Checksum", short))
        self._progress(Step("Download complete", short))
        self._progress(Step("Extracting", short, layer.size, layer.size))
        if facts is not None:
            unpacked.write_facts(made, facts, layer)
        final, blob = self._layout.layer(diff_id), self._layout.blob(layer.digest)
        with self._layout.lock():
            self._layout.hold(self._work, (diff_id, layer.digest))
            self._layout.note_arrival((diff_id, layer.digest))  # for the next try, if we are killed
            if facts is not None:
                if final.exists() and not self._shelves.layers.whole(diff_id):
                    final.rename(made.with_suffix(".damaged"))
                self._layout.move_in(made, final)
            self._layout.move_in(half.path, blob)
        half.empty()
        self._landed(blob)

    def _teller(self, layer: Descriptor) -> Callable[[int], None]:
        """Tells how far a download is, now and then."""
        last = 0.0

        def told(offset: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > _TOLD_SECONDS:
                last = now
                self._progress(Step("Downloading", layer.digest[7:19], offset, layer.size))

        return told
