"""Facts found in a file system: what system it is, what runs in it, what its programs are."""

from __future__ import annotations

from proa.advice.files.all import Start as Start
from proa.advice.files.all import facts as facts

__all__ = ["Start", "facts"]
