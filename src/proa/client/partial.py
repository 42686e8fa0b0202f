"""Files that are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def written(path: str) -> Iterator[BinaryIO]:
    """A file to write that appears as `path` at the end; at an error nothing is left of it."""
    partial = f"{path}.{os.getpid()}.part"
    try:
        with open(partial, "xb") as file:
            yield file
        os.rename(partial, path)
    except BaseException:
        if os.path.lexists(partial):
            os.unlink(partial)
        raise
