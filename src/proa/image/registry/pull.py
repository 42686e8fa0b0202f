"""Pulling: an image from a registry into the store, verified on the way.

Layers come side by side; each is hashed, kept and unpacked in the same pass, from the half an
earlier attempt left.  What the store has is not asked for.  Nothing is named before all is there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from proa.errors import Cancelled, Corrupt, NoSpace, ProaError, RegistryError
from proa.image import progress, staging
from proa.image.catalog import Image
from proa.image.layer import tree
from proa.image.layout import Layout
from proa.image.manifest import Descriptor
from proa.image.progress import Progress, Step
from proa.image.reference import Reference
from proa.image.registry import resolve
from proa.image.registry.client import Registry
from proa.image.registry.layers import Fetch, Taker
from proa.image.registry.resolve import Remote, Resolved, Search
from proa.image.staging import Arrival, Stage
from proa.image.store import Images

PARALLEL = 3  # layers at a time


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Options:
    """How to pull: for which platform (`os/arch[/variant]`, empty for this machine) or for all,
    who hears of it, and who may call it off."""

    platform: str = ""
    all_platforms: bool = False
    progress: Progress = progress.silent
    cancelled: Callable[[], bool] = _never


def pull(
    images: Images, registry: Registry, wanted: Reference, options: Options | None = None
) -> Image:
    """Have the image of a name in the store; of an index, the one for the platform.

    Raises ImageNotFound, Unauthorized, RegistryError, Corrupt, Unsupported, NoSpace, Cancelled.
    """
    options = _serialised(options or Options())
    registry = registry.session(options.cancelled)
    options.progress(Step(f"Pulling from {wanted.path}", wanted.tag or wanted.digest))
    before = _known(images, wanted)
    search = Search(registry, wanted, lambda item: _stored(images, item), before is not None)
    found = resolve.resolve(search, options.platform, options.all_platforms)
    with (
        tree.reporting(f"pull '{wanted.familiar}'"),
        images.workspace() as work,
        _landing(images.shelves().layout, found.images),
    ):
        _take_in(images, work, Fetch(registry, wanted.path), found, options)
        _name(images, work, wanted, found)
    images.shelves().layers.settle_soon()
    image = images.get(f"{wanted.repository}@{found.top.digest}")
    same = before is not None and before.manifest_digest == image.manifest_digest
    said = "Image is up to date for" if same else "Downloaded newer image for"
    options.progress(Step(f"Digest: {found.top.digest}"))
    options.progress(Step(f"Status: {said} {wanted.familiar}"))
    return image


def _take_in(images: Images, work: Path, fetch: Fetch, found: Resolved, options: Options) -> None:
    """Every layer, and its blob safely on the disk."""
    with ThreadPoolExecutor(1, "sync") as disk:  # blobs go to the disk as they come
        syncs: list[Future[None]] = []

        def landed(blob: Path) -> None:
            syncs.append(disk.submit(staging.sync, blob))

        taker = Taker(images.shelves(), work, options.progress, landed)
        _take_layers(taker, fetch, found.images)
    for sync in syncs:
        sync.result()


@contextmanager
def _landing(layout: Layout, found: Sequence[Remote]) -> Iterator[None]:
    """What came waits for a next attempt only when there is hope for one."""
    digests = {key for image in found for key in image.config.diff_ids}
    digests |= {layer.digest for image in found for layer in image.manifest.layers}
    hopeful = False
    try:
        yield
    except (RegistryError, Cancelled):
        hopeful = True
        raise
    finally:
        if not hopeful:
            with layout.lock():
                layout.forget_arrival(digests)


def _serialised(options: Options) -> Options:
    """Steps of many layers, told one at a time."""
    guard = threading.Lock()

    def told(step: Step) -> None:
        with guard:
            options.progress(step)

    return replace(options, progress=told)


def _known(images: Images, wanted: Reference) -> Image | None:
    try:
        return images.get(str(wanted))
    except ProaError:
        return None


def _stored(images: Images, item: Descriptor) -> bytes | None:
    try:
        return images.document(item.digest)
    except Corrupt:
        return None


def _take_layers(taker: Taker, fetch: Fetch, found: Sequence[Remote]) -> None:
    """Every layer of every image, several at a time; the first failure stops the others."""
    pairs: dict[tuple[str, str], Descriptor] = {}
    for image in found:
        for diff_id, layer in zip(image.config.diff_ids, image.manifest.layers, strict=True):
            pairs.setdefault((diff_id, layer.digest), layer)
    missing = [
        (diff_id, layer) for (diff_id, _), layer in pairs.items() if not taker.found(diff_id, layer)
    ]
    _check_space(taker.folder, sum(layer.size for _, layer in missing))
    with ThreadPoolExecutor(PARALLEL, "pull") as pool:
        jobs = [pool.submit(taker.take, fetch, diff_id, layer) for diff_id, layer in missing]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            if not all(job.done() for job in jobs):
                fetch.registry.transport.stop()
                for job in jobs:
                    job.cancel()
    _raise_first(jobs)


def _raise_first(jobs: Sequence[Future[None]]) -> None:
    """The failure that made the others stop, when there was one."""
    failures = [job.exception() for job in jobs if not job.cancelled()]
    real = [error for error in failures if error is not None]
    real.sort(key=lambda error: isinstance(error, Cancelled))
    if real:
        raise real[0]


def _check_space(folder: Path, needed: int) -> None:
    """Refuse at once what cannot fit even compressed."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise NoSpace(
            f"layers of '{needed}' bytes do not fit on the disk, '{free}' are free",
            hint="'proa system prune' makes room",
        )


def _name(images: Images, work: Path, wanted: Reference, found: Resolved) -> None:
    """Keep the documents byte for byte and name what they mean, in one go.

    An image has its tag and the digest it was pulled by; further platforms have theirs alone.
    """
    shelves = images.shelves()
    folder = work / "documents"
    folder.mkdir(mode=0o700)
    stage = Stage(shelves.layout, folder, shelves.bounds)
    for document in found.indexes:
        stage.write(document.data)
    for number, image in enumerate(found.images):
        stage.write(image.document.data)
        stage.write(image.config_data)
        size = sum(shelves.layers.facts(key).size_bytes for key in image.config.diff_ids)
        names = [f"{wanted.repository}@{image.document.digest}"]
        if number == found.chosen:
            names = [str(replace(wanted, digest=""))] if not wanted.digest else []
            names += [f"{wanted.repository}@{found.top.digest}"]
        described = image.document.descriptor
        stage.add(Arrival(image.manifest.config.digest, described, size, tuple(names)))
    stage.commit()
    shelves.catalog.forget()
