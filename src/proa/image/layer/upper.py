"""An overlayfs upper directory that becomes a layer: cleaned in place, by descriptors."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from proa.errors import Corrupt
from proa.image.layer import tree
from proa.image.layer.unpack import OPAQUE, Unpacked

_OVERLAY = ("trusted.overlay.", "user.overlay.")
_REDIRECTS = ("redirect", "metacopy")


def settle(root: Path, epoch_seconds: int | None = None) -> Unpacked:
    """Make the files of an upper directory those of a layer.

    overlayfs's own attributes go, but for opacity; times later than the epoch become it.
    Raises Corrupt when something in it is only whole together with the layers below.
    """
    size, hides, seen = 0, False, set()
    epoch_ns = None if epoch_seconds is None else epoch_seconds * 10**9
    top = os.open(root, tree.DIRECTORY)
    try:
        for fd, name, status in tree.walk(top):
            whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
            hides |= whiteout or _clean(f"/proc/self/fd/{fd}/{os.fsdecode(name)}")
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                size += status.st_size
            if status.st_nlink > 1:
                seen.add((status.st_dev, status.st_ino))
            if epoch_ns is not None and status.st_mtime_ns > epoch_ns and not whiteout:
                times = (min(status.st_atime_ns, epoch_ns), epoch_ns)
                os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(top)
    return Unpacked(size, hides)


def _clean(path: str) -> bool:
    """Remove overlayfs's own attributes; whether it is an opaque directory."""
    opaque = False
    for name in os.listxattr(path, follow_symlinks=False):
        if not name.startswith(_OVERLAY):
            continue
        if name == OPAQUE.decode():
            opaque = True
        elif name.endswith(_REDIRECTS):
            raise Corrupt(f"'{Path(path).name}' is not whole without the layers below: '{name}'")
        else:
            os.removexattr(path, name, follow_symlinks=False)
    return opaque
