"""Images put together from layers: by a build, a commit, a list of packages, a disk.

A layer made here is in the store at once, under its final name, and the collector of no process
takes it before the assembly ends; after that it lives through an image or a keeper.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from proa.errors import Corrupt
from proa.image import config, manifest, reference, referrers, staging
from proa.image.catalog import Catalog, Image
from proa.image.layer import pack, tree, upper
from proa.image.layer.stream import (
    STANDARD_BOUNDS,
    Bounds,
    Hashed,
    Source,
    compression_of,
    decompressed,
    write_all,
)
from proa.image.layer.unpack import Unpacked
from proa.image.layer.unpacked import Layers, unpack_stream, write_facts
from proa.image.layout import Layout
from proa.image.manifest import Descriptor
from proa.image.staging import Arrival, Spooled, Stage

_NOTHING: Mapping[str, str] = MappingProxyType({})
_KEPT_COMPRESSIONS = ("", "gzip", "zstd")


@dataclass(frozen=True)
class Layer:
    """A layer that is in the store, unpacked and as a blob.

    `root` has its files the way overlayfs wants them: whiteouts are 0:0 devices, opaque
    directories carry `trusted.overlay.opaque`.
    """

    diff_id: str
    descriptor: Descriptor
    root: Path


@dataclass(frozen=True)
class Shelves:
    """The parts of a store that an assembly works with."""

    layout: Layout
    catalog: Catalog
    layers: Layers
    bounds: Bounds = STANDARD_BOUNDS


class Assembly:
    """Makes layers and images; `with images.assembly() as assembly:` makes it.

    One thread at a time may use an assembly; many assemblies may be at work.
    """

    def __init__(self, shelves: Shelves, workspace: Path) -> None:
        self._shelves = shelves
        self._layout = shelves.layout
        self._work = workspace
        self._count = 0

    # -- layers ---------------------------------------------------------------------------------

    def layers_of(self, image: Image) -> tuple[Layer, ...]:
        """The layers of an image, lowest first; unpacked now when they are not."""
        pairs = list(zip(image.diff_ids, image.manifest.layers, strict=True))
        with self._layout.lock():
            for diff_id, blob in pairs:
                self._layout.hold(self._work, (diff_id, blob.digest))
        roots = [self._shelves.layers.root(diff_id, blob) for diff_id, blob in pairs]
        return tuple(
            Layer(diff_id, blob, root) for (diff_id, blob), root in zip(pairs, roots, strict=True)
        )

    def layer(self, diff_id: str) -> Layer | None:
        """A layer the store has, held from now on; None when it is unknown or damaged."""
        with self._layout.lock():
            found = find_layer(self._shelves, diff_id)
            if found is not None:
                self._layout.hold(self._work, (diff_id, found.descriptor.digest))
        return found

    def layer_from_tar(self, source: Source) -> Layer:
        """A layer of a tar, plain or compressed, from anywhere: it is unpacked safely."""
        with tree.reporting("unpack a layer"):
            made, blob = self._new(), self._spool(source)
            with (
                blob.path.open("rb", buffering=0) as file,
                decompressed(file, self._shelves.bounds) as plain,
            ):
                hashed = Hashed(plain)
                unpacked = unpack_stream(hashed, made)
            kind = compression_of(blob.path)
            media_type = manifest.OCI_LAYER + (f"+{kind}" if kind else "")
            return self._publish(made, unpacked, hashed.digest, (blob, media_type))

    def _spool(self, source: Source) -> Spooled:
        """The blob to keep; what OCI has no name for is kept plain."""
        stage = Stage(self._layout, self._new(make=True), self._shelves.bounds)
        spooled = stage.spool(source)
        if compression_of(spooled.path) not in _KEPT_COMPRESSIONS:
            with (
                spooled.path.open("rb", buffering=0) as file,
                decompressed(file, self._shelves.bounds) as plain,
            ):
                return stage.spool(plain)
        return spooled

    def layer_from_upper(self, directory: Path, epoch_seconds: int | None = None) -> Layer:
        """A layer of an overlayfs upper directory of the same file system, which is taken.

        It is cleaned of overlayfs's own attributes but opacity, times later than the epoch are
        set to it, and it is written as a tar in one pass; the directory itself is the unpacked
        layer.
        """
        with tree.reporting("make a layer of changes"):
            made, path = self._new(make=True), self._new()
            directory.rename(made / "root")
            facts = upper.settle(made / "root", epoch_seconds)
            with _Sink(path) as sink:
                pack.pack(made / "root", sink, epoch_seconds)
            blob = Spooled(path, sink.digest, sink.size)
            return self._publish(made, facts, blob.digest, (blob, manifest.OCI_LAYER))

    def _publish(
        self, made: Path, unpacked: Unpacked, diff_id: str, kept: tuple[Spooled, str]
    ) -> Layer:
        """Give a finished layer its name, and hold it."""
        blob, media_type = kept
        descriptor = Descriptor(media_type, blob.digest, blob.size)
        write_facts(made, unpacked, descriptor)
        with self._layout.lock():
            self._layout.hold(self._work, (diff_id, descriptor.digest))
            self._layout.move_in(blob.path, self._layout.blob(descriptor.digest))
            self._layout.move_in(made, self._layout.layer(diff_id))
        return Layer(diff_id, descriptor, self._layout.layer(diff_id) / "root")

    def _new(self, make: bool = False) -> Path:
        self._count += 1
        path = self._work / str(self._count)
        if make:
            path.mkdir(mode=0o700)
        return path

    # -- images ---------------------------------------------------------------------------------

    def image(
        self,
        document: Mapping[str, Any],
        layers: Sequence[Layer],
        names: Sequence[str] = (),
        annotations: Mapping[str, str] = _NOTHING,
    ) -> Image:
        """An image of these layers, lowest first; `names` are its from now on, whoever had them.

        `document` is an OCI configuration; its `rootfs` is filled in.
        """
        wanted = [reference.parse(name) for name in names]
        rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
        data = manifest.encode({**document, "rootfs": rootfs})
        config.parse(data)
        if len(layers) > manifest.MAXIMUM_LAYERS:
            raise Corrupt(f"an image of '{len(layers)}' layers has too many")
        described = manifest.describe(manifest.OCI_CONFIG, data)
        blobs = [layer.descriptor for layer in layers]
        whole = manifest.build(described, blobs, annotations)
        top = manifest.describe(manifest.OCI_MANIFEST, whole)
        size = sum(self._shelves.layers.facts(layer.diff_id).size_bytes for layer in layers)
        with tree.reporting("make an image"):
            stage = Stage(self._layout, self._new(make=True), self._shelves.bounds)
            if not self._is_kept(top, described):
                for blob in blobs:
                    staging.sync(self._layout.blob(blob.digest))
                stage.write(data)
                stage.write(whole)
            stage.add(Arrival(described.digest, top, size, tuple(map(str, wanted))))
            stage.commit()
        self._shelves.catalog.forget()
        return self._shelves.catalog.get(described.digest)

    def _is_kept(self, top: Descriptor, described: Descriptor) -> bool:
        """Whether the store has this very image; it is not collected meanwhile."""
        with self._layout.lock():
            self._layout.hold(self._work, [top.digest, described.digest])
            return any(line.manifest.digest == top.digest for line in self._layout.read_index())

    def attach(
        self,
        subject: Image,
        artifact_type: str,
        content: bytes,
        media_type: str,
        annotations: Mapping[str, str] = _NOTHING,
    ) -> str:
        """Keep `content` as an artifact about an image.

        It is an OCI 1.1 artifact manifest with a `subject`; gives its digest.  It lives as long
        as the image and is saved with it.
        """
        with tree.reporting("attach an artifact"):
            stage = Stage(self._layout, self._new(make=True), self._shelves.bounds)
            kept = stage.write(content)
            stage.write(referrers.EMPTY)
            size = len(self._layout.document(subject.manifest_digest))
            about = Descriptor(manifest.OCI_MANIFEST, subject.manifest_digest, size)
            body = Descriptor(media_type, kept.digest, kept.size)
            data = referrers.build(about, artifact_type, body, annotations)
            whole = stage.write(data)
            document = manifest.decode_object(data, "a manifest")
            stage.artifact(referrers.line(whole.digest, whole.size, document, about))
            stage.commit()
        return whole.digest


def find_layer(shelves: Shelves, diff_id: str) -> Layer | None:
    """A layer that is unpacked and whose blob is there; None when it is unknown or damaged."""
    layout = shelves.layout
    if not shelves.layers.whole(diff_id):
        return None
    facts = shelves.layers.facts(diff_id)
    for blob in [facts.blob, *shelves.catalog.blobs_of(diff_id)]:
        if blob is not None and layout.has_blob(blob):
            return Layer(diff_id, blob, layout.layer(diff_id) / "root")
    return None


class _Sink:
    """A new file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        self._hash.update(data)
        write_all(self._fd, data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        """Of everything written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
