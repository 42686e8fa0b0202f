"""Finding what a request names, and saying in Docker's words that it is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.request import Request
from proa.errors import ImageNotFound, NotFound

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.engine.instance import Instance


def instance(engine: Engine, request: Request) -> Instance:
    """The instance of the path: by id, unique prefix of an id, or name."""
    try:
        return engine.get(request.parameter)
    except NotFound:
        raise NotFound(f"No such container: {request.parameter}") from None


def missing_image(reference: str) -> ImageNotFound:
    """What dockerd says about an image it does not have, with the tag it looked for."""
    name = reference.rpartition("/")[2]
    exact = ":" in name or "@" in name
    return ImageNotFound(f"No such image: {reference if exact else reference + ':latest'}")
