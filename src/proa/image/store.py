"""Images: the one door to everything an engine keeps of images.

An image's id is the digest of its configuration, as in Docker.  Everything is verified when it
comes in, made aside, and named in one go; `layout.py` says how it lies on disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from proa.errors import Conflict, ImageNotFound, Invalid, ProaError
from proa.image import (
    archive,
    changes,
    garbage,
    manifest,
    reference,
    referrers,
    rootfs,
    save,
    staging,
    usage,
    views,
)
from proa.image.assembly import Assembly, Layer, Shelves, find_layer
from proa.image.build.cache import Cache
from proa.image.build.cachemounts import CacheMounts
from proa.image.catalog import Catalog, Image, normalised
from proa.image.disk import Disks
from proa.image.layer import tree
from proa.image.layer.stream import STANDARD_BOUNDS, Source
from proa.image.layer.unpacked import Layers
from proa.image.layout import Layout, Named
from proa.image.manifest import Descriptor
from proa.image.reference import Reference
from proa.image.rootfs import ImageRootfs
from proa.image.staging import Arrival, Stage
from proa.image.usage import Usage

Documents = list[dict[str, Any]]
Lines = list[Named]
Descriptors = list[Descriptor]
Removed = list[tuple[str, str]]  # ("untagged" or "deleted", what)


@dataclass(frozen=True)
class Loaded:
    """One image an archive brought, and the names it brought for it."""

    image: Image
    names: tuple[str, ...]


def _nobody(image_id: str) -> Sequence[str]:
    return ()


def _new_name(text: str) -> Reference:
    wanted = reference.parse(text)
    if wanted.digest:
        raise Invalid(f"cannot name an image by a digest: '{text}'")
    return wanted


def _leaving(image: Image, name: str) -> tuple[str, ...]:
    """What goes with a name: the last tag of a repository takes its digests along."""
    repository = reference.parse(name).repository
    known = [text for text in image.references if reference.parse(text).repository == repository]
    tags = [text for text in known if not reference.parse(text).digest]
    return tuple(known) if tags == [name] else (name,)


class Images:
    """The image store of one engine, below `root`; safe for threads and for other processes.

    `in_use` gives the names of the instances that use an image id; the engine sets it.
    """

    def __init__(self, root: Path, in_use: Callable[[str], Sequence[str]] = _nobody) -> None:
        with tree.reporting(f"open the image store '{root}'"):
            self._layout = Layout(root)
        self.in_use = in_use
        self.build_directory = root / "build"
        self.build_cache = Cache(self.build_directory)
        self.cache_mounts = CacheMounts(self.build_directory / "mounts")
        self.keepers: list[garbage.Keeper] = [self.build_cache.keeps]
        self.bounds = STANDARD_BOUNDS
        self._catalog = Catalog(self._layout)
        self._layers = Layers(self._layout)
        self._disks = Disks(self._layout)
        self.collect()  # what a process killed between two renames left

    # -- finding --------------------------------------------------------------------------------

    def get(self, name: str) -> Image:
        """The image of this name, id, digest or unique prefix of an id."""
        return self._catalog.get(name)

    def all(self) -> tuple[Image, ...]:
        """Every image, the newest first."""
        images = self._catalog.snapshot().by_id.values()
        return tuple(sorted(images, key=lambda image: image.created, reverse=True))

    def list(self) -> Documents:
        """Docker's `GET /images/json`."""
        return [views.summary(image) for image in self.all()]

    def inspect(self, name: str) -> dict[str, Any]:
        """Docker's `GET /images/NAME/json`."""
        return views.details(self.get(name))

    def history(self, name: str) -> Documents:
        """Docker's `GET /images/NAME/history`, the newest step first."""
        image = self.get(name)
        self.prepare(image)
        return views.history(image, [self._layers.facts(key).size_bytes for key in image.diff_ids])

    def size(self, image: Image) -> int:
        """Bytes of the files of all its layers."""
        return image.size_bytes

    # -- using ----------------------------------------------------------------------------------

    def layers(self, image: Image) -> tuple[Path, ...]:
        """The unpacked layers, topmost first, each once; unpacked now when they are not."""
        blobs = zip(image.diff_ids, image.manifest.layers, strict=True)
        roots = [self._layers.root(diff_id, blob) for diff_id, blob in blobs]
        return tuple(dict.fromkeys(reversed(roots))) or (self._layout.nothing,)

    def prepare(self, image: Image) -> None:
        """Unpack now, so that a later start need not."""
        self.layers(image)

    def disk(self, image: Image) -> Path:
        """The merged layers as one read-only EROFS file, made now when it is not there."""
        return self._disks.disk(image.id, self.layers(image))

    def disk_path(self, image_id: str) -> Path:
        """Where that disk is, or would be."""
        return self._layout.disk(image_id)

    def writable(self, image: Image, directory: Path) -> ImageRootfs:
        """A writable layer for one instance over this image, seeded in `directory`."""
        with tree.reporting(f"make the writable layer in '{directory}'"):
            return rootfs.seed(image.id, self.layers(image), directory, lambda: self.disk(image))

    @contextmanager
    def stacked(self, layers: Sequence[Path], directory: Path) -> Iterator[ImageRootfs]:
        """Unpacked layers of this store, topmost first, below the `upper` in `directory`.

        Its disk is an image's when one has just these layers, else their own, gone in the end.
        """
        chain = tuple(f"sha256:{layer.parent.name}" for layer in reversed(layers))
        same = next((image.id for image in self.all() if tuple(image.diff_ids) == chain), None)
        key = same or manifest.digest_of(" ".join(chain).encode())
        try:
            with self._layout.workspace() as work:
                with self._layout.lock():
                    self._layout.hold(work, (key,))
                disk = functools.partial(self._disks.disk, key, layers)
                yield ImageRootfs(key, tuple(layers), directory, disk)
        finally:
            with self._layout.lock():
                if same is None and reference.hexadecimal(key) not in self._layout.held():
                    self._layout.disk(key).unlink(missing_ok=True)

    # -- naming and removing --------------------------------------------------------------------

    def tag(self, name: str, new: str) -> None:
        """Give an image another name; whoever had that name loses it."""
        image, wanted = self.get(name), _new_name(new)
        with self._changing(f"tag image '{new}'") as lines:
            line = next(line for line in lines if line.manifest.digest == image.manifest_digest)
            arrival = Arrival(image.id, line.manifest, line.size_bytes, (str(wanted),))
            lines[:] = staging.with_names(lines, arrival)

    def remove(self, name: str, force: bool = False) -> Removed:
        """Untag, and delete what has no name left; gives ("untagged"|"deleted", what) in order.

        With `force` an image in use loses its names only: its data stays for its instances.
        """
        wanted = normalised(name)
        snapshot = self._catalog.snapshot()
        if wanted in snapshot.broken:
            return self._remove_broken(wanted)
        image = self.get(name)
        going = _leaving(image, wanted) if wanted in snapshot.by_name else image.references
        if len(image.names) > 1 and wanted not in going and not force:
            raise Conflict(
                f"image '{image.id[7:19]}' has several names: '{', '.join(image.names)}'",
                hint="remove it by name, or with --force",
            )
        last = len(going) >= len(image.references)
        users = self.in_use(image.id) if last else ()
        if users and not force:
            raise Conflict(
                f"image '{name}' is in use by instance '{users[0]}'", hint="remove that first"
            )
        removed = self._untag(image, going, delete=last and not users)
        if last and not users:
            self.collect()
        return removed

    def _untag(self, image: Image, going: Sequence[str], delete: bool) -> Removed:
        """Take names away, and the image when it has no others (it may have got some just now)."""
        with self._changing(f"remove image '{image.id[7:19]}'") as lines:
            mine = [line for line in lines if self._id_of(line) == image.id]
            left = [line for line in mine if line.name and line.name not in going]
            delete = delete and not left
            if not delete and not left:
                left = [replace(line, name="") for line in mine[:1]]
            lines[:] = [line for line in lines if line not in mine] + left
        result = [("untagged", reference.parse(item).familiar) for item in going]
        return [*result, ("deleted", image.id)] if delete else result

    def _remove_broken(self, wanted: str) -> Removed:
        with self._changing(f"remove image '{wanted}'") as lines:
            lines[:] = [line for line in lines if line.name != wanted]
        self.collect()
        return [("untagged", reference.parse(wanted).familiar)]

    def _id_of(self, line: Named) -> str:
        try:
            return self._catalog.parse(line.manifest.digest)[0].config.digest
        except ProaError:
            return ""

    def collect(self, kept_seconds: float = garbage.KEPT_SECONDS) -> int:
        """Remove blobs, unpacked layers and disks that nothing needs; the bytes freed.

        What a pull was cut off in goes when it is older than `kept_seconds`.
        """
        return garbage.collect(self._layout, self._catalog, self.keepers, kept_seconds)

    def prune(self, ids: Sequence[str]) -> tuple[Removed, int]:
        """Remove these images unless they are in use, then everything nobody needs.

        Gives what went, and the bytes of the disk that are free now.
        """
        removed: Removed = []
        for image_id in ids:
            with suppress(ImageNotFound):  # somebody else was quicker
                image = self.get(image_id)
                if not self.in_use(image_id):
                    removed += self._untag(image, image.references, delete=True)
        return removed, self.collect(kept_seconds=0)

    def usage(self) -> Usage:
        """What images take of the disk: each its own, and what it shares."""
        with tree.reporting("measure images"):
            return usage.measure(self._layout, self.all())

    def settle(self) -> None:
        """Bring all unpacked layers to the disk now; otherwise that goes on in the background."""
        self._layers.settle()

    def _changing(self, action: str) -> AbstractContextManager[Lines]:
        return self._layout.changing(action, self._catalog.forget)

    # -- putting together -----------------------------------------------------------------------

    @contextmanager
    def assembly(self) -> Iterator[Assembly]:
        """Layers and images made here; what is made is kept from the collector until the end."""
        with self._layout.workspace() as work:
            yield Assembly(self.shelves(), work)
        self._layers.settle_soon()

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A private directory on the store's file system, gone at the end."""
        with self._layout.workspace() as work:
            yield work
        self._layers.settle_soon()

    def layer(self, diff_id: str) -> Layer | None:
        """A layer the store has, unpacked and as a blob; None when unknown or damaged.

        Nothing holds it: use `Assembly.layer` for one that must stay.
        """
        return find_layer(self.shelves(), diff_id)

    def blob(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        return self._layout.blob(digest)

    def document(self, digest: str) -> bytes:
        """A small blob, checked against its digest.  Raises Corrupt."""
        return self._layout.document(digest)

    def referrers(self, image: Image, artifact_type: str = "") -> Descriptors:
        """The artifacts about an image, of one type when it is given."""
        with tree.reporting("read the image index"):
            lines = self._layout.read_index()
            return referrers.about(self._layout, lines, image.known_by, artifact_type)

    def shelves(self) -> Shelves:
        """Its parts, for what works on them: assembly, pull, push."""
        return Shelves(self._layout, self._catalog, self._layers, self.bounds)

    # -- archives -------------------------------------------------------------------------------

    def load(self, file: Source) -> tuple[Loaded, ...]:
        """Take in every image of a docker archive or an OCI layout, plain or compressed."""
        return self._take_in(
            "load the archive", lambda stage: archive.load(file, stage, self.bounds)
        )

    def import_(
        self,
        file: Source,
        name: str = "",
        edits: Sequence[str] = (),
        about: Mapping[str, str] = {},
    ) -> Image:
        """Make an image of a root file system's tar; `edits` are Dockerfile lines (CMD, ENV...).

        `about` may have a `message`, and a `platform` (`os/arch`) other than this machine's.
        """
        names = [_new_name(name)] if name else []
        edited = changes.apply({}, edits)
        loaded = self._take_in(
            "import the archive",
            lambda stage: archive.import_(file, stage, self.bounds, names, (edited, about)),
        )
        return loaded[0].image

    def _take_in(self, action: str, fill: Callable[[Stage], None]) -> tuple[Loaded, ...]:
        with tree.reporting(action), self._layout.workspace() as work:
            stage = Stage(self._layout, work, self.bounds)
            fill(stage)
            try:
                arrivals = stage.commit()
            except BaseException:
                self.collect()
                raise
            self._catalog.forget()
        self._layers.settle_soon()
        return tuple(
            Loaded(
                self.get(arrival.image_id),
                tuple(reference.parse(name).familiar for name in arrival.names),
            )
            for arrival in arrivals
        )

    def save(self, names: Sequence[str], file: BinaryIO, kind: str = save.FORMATS[0]) -> None:
        """Write images as one tar: `docker-archive` (an OCI layout too) or `oci-archive`."""
        chosen = [(self.get(name), normalised(name)) for name in names]
        chosen = [(image, name if name in image.references else "") for image, name in chosen]
        with tree.reporting("save images"):
            save.write(self._layout, chosen, file, kind)
