"""`/proa/images/{name}/disk`, `/proa/disks`: images made disks, disks made images, disks read.

A disk travels as a line of JSON, `{"size": bytes, "parts": [[offset, length], ...]}`, and then the
bytes of these parts; lines of progress (`{"status": ...}`) come before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from proa.api.answer import Answer, Streamed, json_bytes, json_reply
from proa.api.errors import message_of
from proa.api.request import Request
from proa.engine import disk_import, disks
from proa.errors import Invalid, ProaError

if TYPE_CHECKING:
    from proa.engine.engine import Engine

DISK = "application/x-proa-disk"


def to_disk(engine: Engine, request: Request) -> Answer:
    """POST /proa/images/{name}/disk: a disk that boots; a kernel may be sent as the body."""
    image = engine.images.get(request.parameter)
    kernel = request.file().read(disks.KERNEL_MAXIMUM_BYTES + 1)
    if len(kernel) > disks.KERNEL_MAXIMUM_BYTES:
        raise Invalid("the kernel is too large")
    wanted = disks.Wanted(
        format=request.text("format", "qcow2"),
        size_bytes=request.whole("size") or 0,
        hostname=request.text("hostname"),
        init=request.text("init", "auto"),
        options=request.text("cmdline"),
        compress=request.flag("compress"),
        kernel=kernel,
    )
    wanted.check()
    return Streamed(_told(_pieces(engine.to_disk(image, wanted))), DISK)


def _pieces(made: Iterator[str | disks.Made]) -> Iterator[bytes]:
    for item in made:
        if isinstance(item, str):
            yield json_bytes({"status": item})
            continue
        facts = {"size": item.size_bytes, "virtual": item.virtual_bytes, "parts": item.parts}
        yield json_bytes(facts)
        yield from item.pieces()


def from_disk(engine: Engine, request: Request) -> Answer:
    """POST /proa/disks: an image of the disk in the body; the last line is the image's."""
    root = request.whole("root")
    origin = disk_import.Origin(request.text("file", "disk"), request.text("name"), root)
    made = engine.from_disk(request.file(), origin)
    first = next(made)  # the disk is here now: what is wrong with it has a status of its own
    return Streamed(_told(_lines(first, made)))


def _lines(
    first: str | disk_import.Imported, rest: Iterator[str | disk_import.Imported]
) -> Iterator[bytes]:
    yield json_bytes({"status": first})
    for item in rest:
        if isinstance(item, str):
            yield json_bytes({"status": item})
            continue
        facts = {
            "image": item.image.id, "names": item.image.names, "ledger": item.ledger,
            "containerfile": item.containerfile, "problems": item.problems,
        }  # fmt: skip
        yield json_bytes(facts)


def facts(engine: Engine, request: Request) -> Answer:
    """POST /proa/disks/facts: what a disk of the host's (or in an image) says of its machine."""
    from proa.advice.disk.machine import document
    from proa.engine.disk_facts import Wanted

    which = Wanted(request.text("disk"), request.whole("root"))
    return json_reply(document(engine.disk_facts(which)))


def _told(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same, an error told as a line: the status has been sent already."""
    try:
        yield from pieces
    except ProaError as error:
        message = message_of(error)
        yield json_bytes(
            {"error": message, "errorDetail": {"message": message, "code": error.code}}
        )
