"""What comparing the forms asks for: an instance's memory, an image's sizes, cold files, the host.

Nothing here is needed to start an instance.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from proa.costs import LayerSize, Memory, Part
from proa.engine import hostfacts
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.errors import Conflict, Invalid, NotFound
from proa.host import pagecache
from proa.image.catalog import Image
from proa.image.layer import tree
from proa.image.layer.compress import measured
from proa.image.machine import formats
from proa.image.sizes import Row, layer_sizes, ledger
from proa.isolation.vm.architectures import ALL, HOST

LEDGERS_MAXIMUM = 64
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Sizes:
    """`GET /proa/images/{name}/sizes`."""

    compressed_bytes: int
    unpacked_bytes: int
    unique_bytes: int
    shared_bytes: int
    layers: tuple[LayerSize, ...]
    ledger: tuple[Row, ...]
    vm: tuple[Part, ...]
    virtual_bytes: int = 0


@dataclass(frozen=True)
class Cooled:
    """Files of one kind, and bytes of them in the page cache."""

    name: str
    files: int
    bytes: int
    resident_before: int
    resident_after: int
    note: str = ""


class Measures:
    """Answers for one engine; ledgers are kept, since images do not change."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ledgers: dict[str, tuple[Row, ...]] = {}
        self._sent: dict[str, int] = {}  # bytes of plain layers once compressed, by digest
        self._lock = threading.Lock()

    def memory(self, instance: Instance) -> Memory:
        """Where an instance's memory is.  Raises Conflict unless it runs."""
        running = instance.held
        if running is None:
            raise Conflict(f"Container {instance.id} is not running")
        return instance.standby.reading(running, "memory", running.memory)

    def host(self) -> dict[str, str]:
        """What runs here."""
        return hostfacts.gather(self._core)

    # -- sizes ----------------------------------------------------------------------------------

    def sizes(self, name: str, *, inside: bool = False, compress: bool = False) -> Sizes:
        """How large an image is, or the disk in a file.

        With `compress` layers that are kept plain are measured compressed, as a push would send
        them.  With `inside` a guest is booted that reads a disk, also one that an image holds, for
        its ledger.  Raises ImageNotFound, NotFound.
        """
        if name.startswith("/"):
            found = _of_disk(_disk(name))
        else:
            found = self._of_image(self._core.images.get(name), compress=compress)
        if not inside:
            return found
        from proa.engine import disk_ledger  # takes a while to read, and longer to do

        return replace(found, ledger=disk_ledger.read(self._core, name))

    def _of_image(self, image: Image, *, compress: bool) -> Sizes:
        images = self._core.images
        roots = images.layers(image)
        by_id = {f"sha256:{root.parent.name}": root for root in roots if image.diff_ids}
        layers = layer_sizes(image, by_id, images.all())
        if compress:
            layers = tuple(map(self._compressed, layers))
        unpacked = sum(layer.unpacked_bytes for layer in layers)
        shared = sum(layer.unpacked_bytes for layer in layers if layer.shared)
        pieces = self._core.vms.footprint(
            image.id, images.disk_path(image.id), image.details.architecture
        )
        return Sizes(
            sum(layer.compressed_bytes for layer in layers), unpacked, unpacked - shared, shared,
            layers, self._ledger(image, roots, unpacked),
            tuple(Part(item.name, item.bytes, item.shared, item.note) for item in pieces),
        )  # fmt: skip

    def _compressed(self, layer: LayerSize) -> LayerSize:
        """The same with its size once compressed; measured once."""
        if not layer.plain:
            return layer
        if layer.digest not in self._sent:
            path = self._core.images.blob(layer.digest)
            self._sent[layer.digest] = measured(path, "gzip")
        return replace(layer, compressed_bytes=self._sent[layer.digest])

    def _ledger(self, image: Image, roots: tuple[Path, ...], unpacked: int) -> tuple[Row, ...]:
        with self._lock:
            found = self._ledgers.get(image.id)
        if found is None:
            with self._core.images.workspace() as work:
                found = ledger(roots, unpacked, work)
            with self._lock:
                if len(self._ledgers) >= LEDGERS_MAXIMUM:
                    self._ledgers.clear()
                self._ledgers[image.id] = found
        return found

    # -- cold files -----------------------------------------------------------------------------

    def cool(self, name: str) -> tuple[Cooled, ...]:
        """Drop from the page cache what starting an image reads, or a machine of a disk's file.

        Spare clones are ended: they map some of it.
        """
        self._core.vms.drop_spares()
        if name.startswith("/"):
            return _cooled("disk", _opened((_disk(name),))), self._programs("")
        images = self._core.images
        image = images.get(name)
        roots = images.layers(image)
        disk = images.disk_path(image.id)
        pieces = self._core.vms.footprint(image.id, disk, image.details.architecture)
        return (
            _cooled("layers", (file for root in roots for file in _below(root))),
            *(_cooled(item.name, _opened(item.paths)) for item in pieces if item.paths),
            self._programs(image.details.architecture),
        )

    def _programs(self, architecture: str) -> Cooled:
        native = self._core.config.native
        kind = ALL.get(architecture or HOST)
        programs = [native, *([kind.program, kind.ours(native)] if kind else [])]
        note = "what running processes have mapped stays"
        return _cooled("programs", _opened(dict.fromkeys(programs)), note)


def _cooled(name: str, files: Iterable[int], note: str = "") -> Cooled:
    """Drop each of these files; they are closed."""
    count = size = before = after = 0
    for file in files:
        found = pagecache.drop(file)
        count, size = count + 1, size + os.fstat(file).st_size
        before, after = before + found.before, after + found.after
    return Cooled(name, count, size, before, after, note)


def _opened(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            yield file
        finally:
            os.close(file)


def _below(root: Path) -> Iterator[int]:
    """The regular files of an unpacked layer."""
    top = os.open(root, tree.DIRECTORY)
    try:
        for directory, name, status in tree.walk(top):
            if not stat.S_ISREG(status.st_mode) or not status.st_size:
                continue
            file = os.open(name, _FILE, dir_fd=directory)
            try:
                yield file
            finally:
                os.close(file)
    finally:
        os.close(top)


def _disk(name: str) -> Path:
    """A disk's file, which is there."""
    path = Path(name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Invalid(f"the disk '{path}' is no regular file")
        path.open("rb").close()
    except OSError as error:
        said = (error.strerror or "").lower()
        raise NotFound(f"cannot open the disk '{path}': {said}") from None
    return path


def _of_disk(path: Path) -> Sizes:
    """A machine's disk: what it takes, and what it is for a machine."""
    facts = path.stat()
    with path.open("rb") as file:
        head = file.read(formats.HEAD_BYTES)
    kind, virtual = formats.detect(head), formats.virtual_bytes(head, facts.st_size)
    taken = facts.st_blocks * 512
    row = Row("allocated", taken, f"a {kind} disk of {virtual} bytes")
    return Sizes(facts.st_size, taken, taken, 0, (), (row,), (), virtual)
