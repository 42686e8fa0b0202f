"""`/proa/images/packages`, `/proa/images/{name}/sbom`: images of packages, bills of materials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from proa.api import feed
from proa.api.answer import Answer, Reply, json_reply
from proa.api.feed import Feed, Message
from proa.api.request import Request
from proa.engine.packages import Left, Order

if TYPE_CHECKING:
    from proa.engine.engine import Engine

TABLE = "table"


def build(engine: Engine, request: Request) -> Answer:
    """POST /proa/images/packages: a tar of a declaration and the files beside it.

    `file` is the declaration's name in it, `t` (more than once) are names of the image.  Answers
    with Docker's progress messages; the last has the image's id in `aux`.
    """
    order = Order(
        file=request.text("file", "image.toml"),
        names=tuple(request.query.get("t", ())),
        isolation=request.text("isolation"),
        offline=request.flag("offline"),
        bills=request.flag("sbom", True),
    )
    sent = request.file()

    def work(told: Feed) -> Iterable[Message]:
        image = engine.from_packages(sent, order, told.told, Left(told.cancelled))
        yield {"aux": {"ID": image.id, "Digest": image.manifest_digest}}

    return feed.stream(work, "packages")


def read(engine: Engine, request: Request) -> Answer:
    """GET /proa/images/{name}/sbom: `format` is spdx, cyclonedx or table.

    The header `Proa-Attached` says whether it was attached to the image or made now.
    """
    name, wanted = request.parameter, request.text("format", "spdx")
    if wanted == TABLE:
        rows, attached = engine.packages_of(name)
        return json_reply({"Packages": rows, "Attached": attached})
    found = engine.bill(name, wanted)
    fields = (("Proa-Attached", str(found.attached).lower()),)
    return Reply(200, found.content, found.format.media_type, fields)


def attach(engine: Engine, request: Request) -> Answer:
    """POST /proa/images/{name}/sbom: attach a bill in every format that has none yet."""
    return json_reply(engine.attach_bills(request.parameter))
