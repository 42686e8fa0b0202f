"""The store on disk: an OCI image layout with a little beside it.

    oci-layout index.json blobs/sha256/   the layout itself, readable by other tools
    layers/<diff id>/{root,layer.json}    unpacked layers
    disks/<image id>.erofs                merged read-only disks, made when a vm asks
    partial/                              blobs that were cut off, notes of what just came in
    empty/                                the only layer of an image without layers
    tmp/<random>/                         work in progress, locked by whoever works in it
    lock                                  held while the index changes and while garbage is swept

Whatever is named finally was complete before it got its name (written elsewhere, then renamed).
What a killed process left in `tmp` nobody holds a lock on, and goes at the next opening.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from proa.errors import Corrupt
from proa.host import files
from proa.image import manifest, reference
from proa.image.layer import tree
from proa.image.manifest import Descriptor

_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_SIZE = "io.proa.size"
INDEX = "io.proa.index"  # in what is saved: the index an image came from
_SUBJECT = "io.proa.subject"
_HELD = "held"
_ARRIVED = ".arrived"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True)
class Named:
    """One line of the index: a manifest and one normalised name of it, or none.

    With a `subject` it is no image but an artifact about one: an SBOM, a signature.
    """

    manifest: Descriptor
    name: str
    size_bytes: int
    subject: str = ""  # of an artifact: the digest of the manifest it is about

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the manifest, and what its name ends with: of the index it was found through."""
        known_by = self.name.partition("@")[2]
        return (self.manifest.digest, known_by) if known_by else (self.manifest.digest,)

    def descriptor(self) -> Descriptor:
        """As the index has it."""
        annotations = {_SIZE: str(self.size_bytes)}
        if self.name:
            annotations |= {_NAME: self.name, _CONTAINERD_NAME: self.name}
        if self.subject:
            annotations = {_SUBJECT: self.subject}
        return replace(self.manifest, annotations=annotations)


class Layout:
    """Paths, locks and atomic changes; knows nothing of what an image means."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.layers = root / "layers"
        self.disks = root / "disks"
        self.temporary = root / "tmp"
        self.nothing = root / "empty"  # the one layer of an image that has none
        self.partial = root / "partial"
        self.index = root / "index.json"
        private = (root, self.blobs.parent, self.blobs, self.layers, self.disks, self.temporary)
        for directory in (*private, self.partial):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)  # CVE-2021-41091: setuid files of images are in here
        self.nothing.mkdir(exist_ok=True)
        self.nothing.chmod(0o755)
        with self.lock():
            self._sweep()
            if not self.index.exists():
                self.write_index([])
                files.atomic_write(root / "oci-layout", LAYOUT)

    # -- locks and work in progress -------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One thread of one process at a time changes what is named."""
        with files.Lock(self.root / "lock"):
            yield

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory for half-made things, gone at the end whatever happens."""
        path = self.temporary / secrets.token_hex(8)
        with self.lock():  # a sweep may not come between making and locking it
            path.mkdir(mode=0o700)
            fd = os.open(path, tree.DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            try:
                files.remove_tree(path)
            finally:
                os.close(fd)

    def hold(self, workspace: Path, digests: Iterable[str]) -> None:
        """Keep these from the collector until the workspace ends; call with the lock held."""
        held = workspace / _HELD
        held.mkdir(mode=0o700, exist_ok=True)
        for digest in digests:
            (held / reference.hexadecimal(digest)).touch()

    def held(self) -> set[str]:
        """Hex digests that somebody at work needs; call with the lock held."""
        return {path.name for path in self.temporary.glob(f"*/{_HELD}/*")}

    def _sweep(self) -> None:
        for path in self.root.glob(".index.json.*"):
            path.unlink()
        for path in list(self.temporary.iterdir()):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files.remove_tree(path)
            except BlockingIOError:
                pass  # somebody is working there
            finally:
                os.close(fd)

    # -- blobs and layers -----------------------------------------------------------------------

    def blob(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self.blobs / reference.hexadecimal(digest)

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there, in its full length."""
        try:
            return self.blob(blob.digest).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def document(self, digest: str) -> bytes:
        """A small blob, checked."""
        path = self.blob(digest)
        try:
            with path.open("rb") as file:
                data = file.read(manifest.MAXIMUM_DOCUMENT + 1)
        except FileNotFoundError as error:
            raise Corrupt(f"blob '{digest}' is missing") from error
        found = manifest.digest_of(data)
        if found != digest:
            raise Corrupt(f"blob '{path.name}' has digest '{found}' but '{digest}' was promised")
        return data

    def layer(self, diff_id: str) -> Path:
        """Where the unpacked layer is, or would be."""
        return self.layers / reference.hexadecimal(diff_id)

    def disk(self, image_id: str) -> Path:
        """Where the merged disk is, or would be."""
        return self.disks / f"{reference.hexadecimal(image_id)}.erofs"

    def move_in(self, made: Path, final: Path) -> None:
        """Give a finished file or directory its name, unless another process was quicker."""
        if not final.exists():
            made.rename(final)

    def move_dead(self, live: set[str], trash: Path) -> None:
        """Move what no image needs to `trash`; call with the lock held."""
        for directory in (self.blobs, self.layers, self.disks):
            there = trash / directory.name
            there.mkdir()
            for path in directory.iterdir():
                if path.name.removesuffix(".erofs") not in live:
                    path.rename(there / path.name)

    # -- what a pull that was cut off leaves ----------------------------------------------------

    def note_arrival(self, digests: Iterable[str]) -> None:
        """Keep these for a week, though no image has them yet; call with the lock held.

        A pull that was killed goes on with them.
        """
        for digest in digests:
            (self.partial / f"{reference.hexadecimal(digest)}{_ARRIVED}").touch()

    def forget_arrival(self, digests: Iterable[str]) -> None:
        """An image has these now, or none ever will; call with the lock held."""
        for digest in digests:
            name = f"{reference.hexadecimal(digest)}{_ARRIVED}"
            (self.partial / name).unlink(missing_ok=True)

    def forget_arrivals(self, digests: Iterable[str]) -> None:
        """An image has these now; call with the lock held."""
        for digest in digests:
            (self.partial / f"{reference.hexadecimal(digest)}{_ARRIVED}").unlink(missing_ok=True)

    def arrivals(self) -> set[str]:
        """Hex digests of what came in lately; call with the lock held."""
        return {path.name.removesuffix(_ARRIVED) for path in self.partial.glob(f"*{_ARRIVED}")}

    def sweep_partial(self, live: set[str], older_seconds: float, trash: Path) -> None:
        """Move old halves of blobs, and needless notes, to `trash`; call with the lock held.

        What somebody is writing stays.
        """
        (trash / "partial").mkdir()
        for path in self.partial.iterdir():
            arrived = path.name.endswith(_ARRIVED)
            needless = arrived and path.name.removesuffix(_ARRIVED) in live
            if needless or time.time() - path.lstat().st_mtime >= older_seconds:
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue  # a pull has finished
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.rename(trash / "partial" / path.name)
                except BlockingIOError:
                    pass
                finally:
                    os.close(fd)

    # -- the index ------------------------------------------------------------------------------

    def stamp(self) -> tuple[int, int, int]:
        """Changes whenever the index does."""
        status = os.stat(self.index)
        return status.st_mtime_ns, status.st_ino, status.st_size

    def read_index(self) -> list[Named]:
        """Every line of the index."""
        listed = manifest.parse_index(self.index.read_bytes())
        return [_named(item) for item in listed]

    @contextmanager
    def changing(self, action: str, changed: Callable[[], None]) -> Iterator[list[Named]]:
        """The lines of the index, to be edited in place, with the lock held."""
        with tree.reporting(action), self.lock():
            lines = self.read_index()
            yield lines
            self.write_index(lines)
            changed()

    def write_index(self, lines: list[Named]) -> None:
        """Replace the index; call with the lock held."""
        document = {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_INDEX,
            "manifests": [line.descriptor().document() for line in lines],
        }
        files.atomic_write(self.index, json.dumps(document, indent=1).encode(), durable=True)


def _named(item: Descriptor) -> Named:
    notes = item.annotations
    size = notes.get(_SIZE, "0")
    bytes_ = int(size) if size.isdigit() else 0
    return Named(
        replace(item, annotations={}), notes.get(_NAME, ""), bytes_, notes.get(_SUBJECT, "")
    )
