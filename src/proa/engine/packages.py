"""Images made from packages, and bills of materials: what the engine adds to the image service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proa.engine import request
from proa.engine.core import Core
from proa.engine.steps import Steps
from proa.errors import Corrupt, Invalid, Unsupported
from proa.image.catalog import Image
from proa.image.layer import tar
from proa.image.layer.stream import Source
from proa.image.packages import build, reader, work
from proa.image.progress import Progress, Step
from proa.image.sbom import bill

MAXIMUM_BYTES = 64 << 20  # of the files that come with a declaration; they are held in memory
MAXIMUM_FILES = 10_000


@dataclass(frozen=True)
class Order:
    """A build that a client asked for; `file` is what errors call the declaration."""

    file: str = "image.toml"
    names: tuple[str, ...] = ()
    isolation: str = ""
    offline: bool = False
    bills: bool = True


class Left(threading.Event):
    """Set once somebody has left."""

    def __init__(self, has_left: Callable[[], bool]) -> None:
        super().__init__()
        self._has_left = has_left

    def is_set(self) -> bool:
        """Whether it is so by now."""
        return super().is_set() or self._has_left()


def make(
    core: Core, sent: Source, order: Order, progress: Progress, cancel: threading.Event
) -> Image:
    """An image of the tar `sent`: a declaration under the order's name, and files beside it."""
    sources = _files(sent)
    if order.file not in sources:
        raise Invalid(f"the declaration '{order.file}' was not sent")
    spec = reader.parse(sources.pop(order.file), order.file)
    core.isolation(request.isolation_name(order.isolation))
    means = build.Means(core.images, Steps(core), core.config.root / "packages")
    wanted = work.Request(spec, sources, order.names, order.isolation, order.offline)
    image = build.build(means, wanted, progress, cancel)
    if order.bills:
        _attach(core, image, progress)
    return image


def _files(sent: Source) -> dict[str, bytes]:
    """The regular files of an archive by name; nothing of it touches the disk."""
    found: dict[str, bytes] = {}
    left = MAXIMUM_BYTES
    entries = tar.Reader(sent)
    for count, entry in enumerate(entries):
        if entry.kind != tar.FILE:
            continue
        left -= entry.size
        if left < 0 or count > MAXIMUM_FILES or entry.segments is not None:
            raise Corrupt(
                f"the files beside the declaration are more than '{MAXIMUM_BYTES}' bytes",
                hint="put large files into a package",
            )
        name = entry.name.decode(errors="replace").removeprefix("./")
        found[name] = entries.read(MAXIMUM_BYTES)
    return found


def _attach(core: Core, image: Image, progress: Progress) -> None:
    progress(Step("Attaching bills of materials"))
    try:
        with core.images.assembly() as assembly:
            bill.attach(core.images, image, assembly)
    except Unsupported as error:
        progress(Step(f"No bill of materials: {error.message}"))


def bill_of(core: Core, name: str, format: str) -> bill.Bill:
    """An image's bill in a format: the attached one, or one made now."""
    return bill.of(core.images, core.images.get(name), format)


def table_of(core: Core, name: str) -> tuple[list[dict[str, str]], bool]:
    """Packages of an image as rows, and whether they are of an attached bill."""
    found = bill_of(core, name, "spdx")
    return bill.rows(found.content, "spdx"), found.attached


def attach_bills(core: Core, name: str) -> list[dict[str, Any]]:
    """Attach a bill in every format that has none yet; the new artifacts."""
    image = core.images.get(name)
    with core.images.assembly() as assembly:
        made = bill.attach(core.images, image, assembly)
    return [{"Digest": digest, "Subject": image.manifest_digest} for digest in made]
