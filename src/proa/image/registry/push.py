"""Push: what a registry lacks of an image is sent, then the manifest that names it.

Plain layers are compressed first; the manifest that says so stays in the store under the digest
it has in the repository, so that the next push makes and sends nothing.  An image whose layers
are compressed already keeps its manifest byte for byte.
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proa.errors import Cancelled, Corrupt, ImageNotFound, NotFound
from proa.image import manifest
from proa.image.assembly import Shelves
from proa.image.catalog import Image
from proa.image.layer import compress
from proa.image.layer.stream import compression_of
from proa.image.manifest import Descriptor, Manifest
from proa.image.progress import Progress, Step, silent
from proa.image.reference import Reference
from proa.image.registry import origins, recompressed, uploads
from proa.image.registry.client import Document, Registry, referrers_tag
from proa.image.registry.sending import Parcel, Target, deliver
from proa.image.staging import Arrival, Spooled, Stage
from proa.image.store import Images

PARALLEL = 5
_SHORT = slice(7, 19)


@dataclass(frozen=True)
class Pushed:
    """What a tag stands for in the registry now; `size` is the manifest's, in bytes."""

    tag: str
    digest: str
    size: int


@dataclass(frozen=True)
class Ready:
    """A blob of the image that can be sent; `label` is what people know it by."""

    label: str
    descriptor: Descriptor
    path: Path


def push(
    images: Images,
    registry: Registry,
    wanted: Reference,
    compression: str = "gzip",
    progress: Progress = silent,
) -> Pushed:
    """Send the image of this name.  Raises ImageNotFound, Unauthorized, RegistryError."""
    compress.check(compression)
    image = _image(images, wanted)
    shelves = images.shelves()
    with images.workspace() as work:
        with shelves.layout.lock():
            shelves.layout.hold(work, [image.manifest_digest, *_blobs_of(image)])
        job = _Job(shelves, work, Target(registry, wanted.path), _Told(progress))
        progress(Step(f"The push refers to repository [{wanted.repository}]"))
        document = job.layers(image, compression)
        job.config(document)
        uploads.put_manifest(registry, wanted.path, wanted.tag or document.digest, document)
        for artifact in images.referrers(image):
            job.artifact(artifact, document.descriptor)
        job.remember(image, wanted, document)
    return Pushed(wanted.tag, document.digest, len(document.data))


def _image(images: Images, wanted: Reference) -> Image:
    try:
        return images.get(str(wanted))
    except ImageNotFound:
        raise ImageNotFound(
            f"An image does not exist locally with the tag: {wanted.familiar_repository}",
            hint=f"'proa tag IMAGE {wanted.familiar}' gives it that name",
        ) from None


def _blobs_of(image: Image) -> list[str]:
    return [image.manifest.config.digest, *(layer.digest for layer in image.manifest.layers)]


class _Told:
    """Progress for many threads; after `stop` whoever tells something is told to stop."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._guard = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def __call__(self, status: str, label: str = "", current: int = 0, total: int = 0) -> None:
        with self._guard:
            if self._stopped:
                raise Cancelled("another layer failed")
            if label or not total:
                self._progress(Step(status, label, current, total))


class _Job:
    """One image on its way."""

    def __init__(self, shelves: Shelves, work: Path, target: Target, told: _Told) -> None:
        self._shelves = shelves
        self._layout = shelves.layout
        self._work = work
        self._target = target
        self._told = told
        self._made: list[Spooled] = []  # compressed here
        self._sources = origins.sources(shelves, target.registry.name, target.repository)

    # -- layers ---------------------------------------------------------------------------------

    def layers(self, image: Image, compression: str) -> Document:
        """Send every layer; the manifest that names them as they were sent."""
        data = self._layout.document(image.manifest_digest)
        found = self._kept(image, compression)
        labels = [diff_id[_SHORT] for diff_id in image.diff_ids]
        for label in dict.fromkeys(labels):
            self._told("Preparing", label)
        pairs = zip(image.diff_ids, found.layers, strict=True)
        work = [(diff_id, layer, compression) for diff_id, layer in dict(pairs).items()]
        with ThreadPoolExecutor(PARALLEL, "push") as pool:
            sent = {item[0]: pool.submit(self._layer, *item) for item in work}
            ended = wait(sent.values(), return_when=FIRST_EXCEPTION).done
            if any(future.exception() for future in ended):
                self._told.stop()
                pool.shutdown(cancel_futures=True)
        for future in ended:
            future.result()
        layers = [sent[diff_id].result() for diff_id in image.diff_ids]
        return recompressed.document(data, image.manifest, layers)

    def _layer(self, diff_id: str, layer: Descriptor, compression: str) -> Descriptor:
        label = diff_id[_SHORT]
        path = self._layout.blob(layer.digest)
        if not path.exists():
            if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
                self._told("Skipped foreign layer", label)
                return layer
            raise Corrupt(f"blob '{layer.digest}' is missing")
        if not compression_of(path):
            path, layer = self._compressed(path, layer, (label, compression))
        self._deliver(Ready(label, layer, path))
        return layer

    def _compressed(
        self, path: Path, layer: Descriptor, how: tuple[str, str]
    ) -> tuple[Path, Descriptor]:
        label, kind = how
        made = self._work / f"{layer.digest[7:]}.{kind}"
        total = layer.size
        digest, size = compress.compress(
            path, made, kind, lambda done: self._told("Compressing", label, done, total)
        )
        media_type = recompressed.media_type(layer.media_type, kind)
        self._made.append(Spooled(made, digest, size))
        return made, replace(layer, media_type=media_type, digest=digest, size=size)

    def _deliver(self, ready: Ready) -> None:
        blob = ready.descriptor
        parcel = Parcel(blob.digest, blob.size, ready.path)
        if ready.path.stat().st_size != blob.size:
            raise Corrupt(f"blob '{blob.digest}' has not '{blob.size}' bytes")
        came = deliver(
            self._target, parcel, self._sources.of(blob.digest),
            lambda done: self._told("Pushing", ready.label, done, blob.size),
        )  # fmt: skip
        if ready.label:
            word, _, source = came.partition(" ")
            words = {"present": "Layer already exists", "mounted": f"Mounted from {source}"}
            self._told(words.get(word, "Pushed"), ready.label)

    def _kept(self, image: Image, compression: str) -> Manifest:
        """The image's manifest, or one an earlier push made of it with these compressed layers."""
        blobs = [self._layout.blob(layer.digest) for layer in image.manifest.layers]
        if all(compression_of(blob) for blob in blobs if blob.exists()):
            return image.manifest
        with self._layout.lock():
            for other in origins.manifests(self._shelves):
                if recompressed.is_made_of(other, image.manifest, compression):
                    self._layout.hold(self._work, [layer.digest for layer in other.layers])
                    return other
        return image.manifest

    # -- the rest -------------------------------------------------------------------------------

    def config(self, document: Document) -> None:
        """Send the configuration."""
        blob = manifest.parse_manifest(document.data).config
        self._layout.document(blob.digest)  # checked
        self._deliver(Ready("", blob, self._layout.blob(blob.digest)))

    def artifact(self, listed: Descriptor, subject: Descriptor) -> None:
        """Send an artifact about the image, with what it consists of."""
        fields = manifest.decode_object(self._layout.document(listed.digest), "a manifest")
        parts = manifest.parse_manifest(self._layout.document(listed.digest))
        data = self._layout.document(listed.digest)
        if fields.get("subject", {}).get("digest") != subject.digest:
            data = manifest.encode({**fields, "subject": subject.document()})
        for blob in {item.digest: item for item in (parts.config, *parts.layers)}.values():
            self._deliver(Ready("", blob, self._layout.blob(blob.digest)))
        document = Document(listed.media_type, manifest.digest_of(data), data)
        registry, repository = self._target.registry, self._target.repository
        if not uploads.put_manifest(registry, repository, document.digest, document):
            described = replace(
                document.descriptor, annotations=listed.annotations,
                artifact_type=listed.artifact_type,
            )  # fmt: skip
            _list_by_tag(self._target, subject.digest, described)

    def remember(self, image: Image, wanted: Reference, document: Document) -> None:
        """The image has this digest in that repository from now on."""
        stage = Stage(self._layout, self._work, self._shelves.bounds)
        for blob in self._made:
            stage.keep(blob)
        if document.digest != image.manifest_digest:
            stage.write(document.data)
        name = str(replace(wanted, tag="", digest=document.digest))
        stage.add(Arrival(image.id, document.descriptor, image.size_bytes, (name,)))
        stage.commit()
        self._shelves.catalog.forget()


def _list_by_tag(target: Target, subject: str, described: Descriptor) -> None:
    """Note a referrer in the index that stands in where a registry has no referrers API."""
    tag = referrers_tag(subject)
    listed: list[dict[str, Any]] = []
    try:
        data = target.registry.manifest(target.repository, tag).data
        manifest.parse_index(data)
        listed = manifest.decode_object(data, "an index")["manifests"]
    except NotFound:
        pass
    if any(item["digest"] == described.digest for item in listed):
        return
    index = {
        "schemaVersion": 2, "mediaType": manifest.OCI_INDEX,
        "manifests": [*listed, described.document()],
    }  # fmt: skip
    data = manifest.encode(index)
    document = Document(manifest.OCI_INDEX, manifest.digest_of(data), data)
    uploads.put_manifest(target.registry, target.repository, tag, document)
