"""Several layers as one: what the upper ones hide goes, what they hide of others stays hidden."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from proa.image.build.place import Manner, Target
from proa.image.build.walk import Item, Tree, Walker, open_root
from proa.image.layer.unpack import OPAQUE


def squash(layers: Sequence[Path], directory: Path) -> Path:
    """Merge unpacked layers, the lowest first, into the new `directory/upper`; they stay."""
    upper = directory / "upper"
    upper.mkdir(mode=0o755)
    fd = open_root(upper)
    try:
        with Target(fd, lambda: None) as target:
            for root in layers:
                source = open_root(root)
                try:
                    with Walker(Tree(source)) as walker:
                        _merge(target, walker)
                finally:
                    os.close(source)
    finally:
        os.close(fd)
    return upper


def _merge(target: Target, walker: Walker) -> None:
    """Put a layer on what is there: hide what it hides, then copy it over."""
    for item in walker.walk(""):
        place = item.path
        if not place:
            continue
        if _is_whiteout(item):
            target.remove(place)
            target.whiteout(place)
            continue
        there = target.status(place)
        is_directory = stat.S_ISDIR(item.status.st_mode)
        if there is not None and not (is_directory and stat.S_ISDIR(there.st_mode)):
            hid = _hides(there)
            target.remove(place)
            if hid and is_directory:
                target.directory(place)
                os.setxattr(target.opened(place), OPAQUE, b"y")
        if is_directory and _is_opaque(walker, item):
            target.remove(place)
            target.directory(place)
            os.setxattr(target.opened(place), OPAQUE, b"y")
    kept = (item for item in walker.walk("") if not _is_whiteout(item))
    target.copy(walker, kept, "", Manner())


def _hides(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_whiteout(item: Item) -> bool:
    return _hides(item.status)


def _is_opaque(walker: Walker, item: Item) -> bool:
    fd = walker.open(item)
    try:
        return OPAQUE.decode() in os.listxattr(fd)
    finally:
        os.close(fd)
