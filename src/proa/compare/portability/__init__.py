"""Which hosts can run an image, in which form: `gather`."""

from __future__ import annotations

from proa.compare.portability.gathering import Options as Options
from proa.compare.portability.gathering import gather as gather
from proa.compare.portability.gathering import kernels_for as kernels_for

__all__ = ["Options", "gather", "kernels_for"]
