"""New images on their way in: everything is made and checked aside, then named in one go."""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt
from proa.image import config, manifest
from proa.image.config import ImageConfig
from proa.image.layer import unpacked
from proa.image.layer.stream import (
    CHUNK,
    STANDARD_BOUNDS,
    Bounds,
    Source,
    compression_of,
    write_all,
)
from proa.image.layout import Layout, Named
from proa.image.manifest import Descriptor, Manifest
from proa.image.reference import Reference

_WORTH_A_THREAD = 1 << 16  # bytes to hash
WORKERS = min(4, os.cpu_count() or 1) + 1  # one may wait for the disk


@dataclass(frozen=True)
class Spooled:
    """A file that came in: where it is, and what it is."""

    path: Path
    digest: str
    size: int

    def document(self, what: str) -> bytes:
        """Its content, when it is a small document."""
        if self.size > manifest.MAXIMUM_DOCUMENT:
            raise Corrupt(f"{what} of '{self.size}' bytes is too large")
        return self.path.read_bytes()


@dataclass(frozen=True)
class Arrival:
    """One image that is complete in the stage."""

    image_id: str
    manifest: Descriptor
    size_bytes: int
    names: tuple[str, ...]


class Stage:
    """A workspace of the store in which images are put together."""

    def __init__(self, layout: Layout, directory: Path, bounds: Bounds = STANDARD_BOUNDS) -> None:
        self._layout = layout
        self._directory = directory
        self._bounds = bounds
        self._blobs: dict[str, Path] = {}
        self._layers: dict[str, Path] = {}
        self._sizes: dict[str, int] = {}
        self._arrivals: list[Arrival] = []
        self._artifacts: list[Named] = []
        self._count = 0

    def _path(self) -> Path:
        self._count += 1
        return self._directory / str(self._count)

    def spool(self, source: Source) -> Spooled:
        """Write a stream to a file of the stage, hashed on the way."""
        path, size, digest = self._path(), 0, hashlib.sha256()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with ThreadPoolExecutor(1, "hash") as hasher:
                hashing: Future[None] | None = None
                while data := source.read(CHUNK):
                    if hashing is not None:
                        hashing.result()
                    hashing = None
                    if len(data) < _WORTH_A_THREAD:
                        digest.update(data)
                    else:
                        hashing = hasher.submit(digest.update, data)
                    write_all(fd, data)
                    size += len(data)
        finally:
            os.close(fd)
        return Spooled(path, f"sha256:{digest.hexdigest()}", size)

    def keep(self, spooled: Spooled) -> None:
        """This file is a blob of an image."""
        self._blobs[spooled.digest] = spooled.path

    def write(self, data: bytes) -> Spooled:
        """Keep a document made here."""
        spooled = self.spool(io.BytesIO(data))
        self.keep(spooled)
        return spooled

    def image(
        self, described: Descriptor, parts: Manifest, document: bytes, names: list[Reference]
    ) -> Arrival:
        """Check one image whose blobs are all kept, unpack its layers, and note it for commit."""
        parsed = config.parse(document)
        check_layers(parsed, parts)
        self._unpack_all(list(zip(parsed.diff_ids, parts.layers, strict=True)))
        size = sum(self._sizes[diff_id] for diff_id in parsed.diff_ids)
        arrival = Arrival(parts.config.digest, described, size, tuple(map(str, names)))
        self.add(arrival)
        return arrival

    def add(self, arrival: Arrival) -> None:
        """Note an image for commit; whatever the stage does not have of it the store has."""
        self._arrivals.append(arrival)

    def artifact(self, line: Named) -> None:
        """Note an artifact about an image for commit."""
        self._artifacts.append(line)

    def _unpack_all(self, pairs: list[tuple[str, Descriptor]]) -> None:
        """Several at a time, while their blobs go to the disk."""
        first = dict(reversed(pairs))
        with ThreadPoolExecutor(WORKERS, "unpack") as pool:
            jobs: list[Future[None]] = []
            for diff_id, layer in first.items():
                jobs.append(pool.submit(sync, self._blobs[layer.digest]))
                jobs.append(pool.submit(self._unpack, layer, diff_id, self._path()))
            try:
                for job in jobs:
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
        for diff_id, layer in pairs:
            if layer.digest != first[diff_id].digest:  # the same layer, compressed differently
                self._unpack(layer, diff_id, self._path())

    def _unpack(self, layer: Descriptor, diff_id: str, made: Path) -> None:
        """Unpack a layer, or only check it when the store has it."""
        if diff_id in self._sizes and layer.digest == diff_id:
            return
        blob = self._blobs[layer.digest]
        facts = unpacked.facts_at(self._layers.get(diff_id) or self._layout.layer(diff_id))
        if facts is None:
            plain = layer.digest == diff_id and not compression_of(blob)  # checked when it came in
            found = (
                unpacked.unpack_plain(blob, made)
                if plain
                else unpacked.unpack_blob(blob, diff_id, made, self._bounds)
            )
            facts = unpacked.write_facts(made, found, layer)
            self._layers[diff_id] = made
        elif layer.digest != diff_id:
            unpacked.verify(blob, diff_id, self._bounds)
        self._sizes[diff_id] = facts.size_bytes

    def commit(self) -> list[Arrival]:
        """Move everything to its place and name it; nothing is seen before that."""
        for path in self._blobs.values():
            sync(path)
        with self._layout.lock():
            for digest, path in self._blobs.items():
                self._layout.move_in(path, self._layout.blob(digest))
            for diff_id, made in self._layers.items():
                self._layout.move_in(made, self._layout.layer(diff_id))
            before = lines = self._layout.read_index()
            for arrival in self._arrivals:
                lines = with_names(lines, arrival)
            lines = lines + [line for line in self._artifacts if line not in lines]
            if len(lines) != len(before) or any(line not in before for line in lines):
                self._layout.write_index(lines)
            for arrival in self._arrivals:
                self._layout.forget_arrivals(self._layers_of(arrival))
        return self._arrivals

    def _layers_of(self, arrival: Arrival) -> list[str]:
        parts = manifest.parse_manifest(self._layout.document(arrival.manifest.digest))
        details = config.parse(self._layout.document(parts.config.digest))
        return [*details.diff_ids, *(layer.digest for layer in parts.layers)]


def sync(path: Path) -> None:
    """Bring a file to the disk; quick the second time."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_layers(parsed: ImageConfig, parts: Manifest) -> None:
    """A configuration and a manifest must speak of equally many layers."""
    if len(parsed.diff_ids) != len(parts.layers):
        raise Corrupt(
            f"the image has '{len(parts.layers)}' layers but its configuration names "
            f"'{len(parsed.diff_ids)}'"
        )


def with_names(lines: list[Named], arrival: Arrival) -> list[Named]:
    """The index with an image added: its names are taken from whoever had them.

    An image that loses its last name stays, nameless; one that has a name has no nameless line.
    """
    new = [Named(arrival.manifest, name, arrival.size_bytes) for name in arrival.names]
    digest = arrival.manifest.digest
    losers = [line for line in lines if line.name and line.name in arrival.names]
    kept = [line for line in lines if line not in losers]
    for line in losers:
        named = any(other.manifest.digest == line.manifest.digest for other in kept)
        if line.manifest.digest != digest and not named:
            kept.append(Named(line.manifest, "", line.size_bytes))
    if new:
        kept = [line for line in kept if line.name or line.manifest.digest != digest]
    elif not any(line.manifest.digest == digest for line in kept):
        new = [Named(arrival.manifest, "", arrival.size_bytes)]
    return kept + new
