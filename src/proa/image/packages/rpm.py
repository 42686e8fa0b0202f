"""rpm packages."""

from __future__ import annotations

from proa.errors import Unsupported
from proa.image.packages.work import Made, Work


def install(work: Work) -> list[Made]:
    """The layers of the declaration's packages, lowest first."""
    raise Unsupported("rpm")
