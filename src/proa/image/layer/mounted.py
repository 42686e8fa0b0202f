"""Layers as one file system, mounted for a moment and attached nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from proa.host import mounts

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def mounted(layers: Sequence[Path], writable: Path | None = None) -> Iterator[int]:
    """A descriptor of the merged root of `layers`, topmost first; devices in it do not work.

    `writable` holds the directories `upper` and `work`; without it nothing can be changed.
    """
    with ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        lowers = []
        for layer in layers:
            lowers.append(keep(mounts.open_tree(layer)))
            mounts.set_attributes(lowers[-1], readonly=True, nodev=True)
        if writable is None:
            root = lowers[0] if len(lowers) == 1 else keep(mounts.overlay(lowers))
        else:
            top = keep(mounts.open_tree(writable))
            mounts.set_attributes(top, nodev=True)
            upper, work = (keep(os.open(name, _PATH, dir_fd=top)) for name in ("upper", "work"))
            root = keep(mounts.overlay(lowers, upper, work))
        yield keep(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root))
