"""An image's files with one instance's writable layer over them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageRootfs:
    """`proa.resources.Rootfs` over unpacked layers."""

    image_id: str
    layers: tuple[Path, ...]
    upper: Path
    make_disk: Callable[[], Path]

    def disk(self) -> Path:
        """The merged layers as one read-only EROFS file, made now when not cached."""
        return self.make_disk()


def seed(
    image_id: str, layers: tuple[Path, ...], directory: Path, make_disk: Callable[[], Path]
) -> ImageRootfs:
    """Make `upper` and `work` in `directory`; what is there already is left as it is.

    The upper layer's root shows through as the instance's `/`, so it gets owner and mode of the
    image's, before it gets its name.
    """
    upper, work, made = directory / "upper", directory / "work", directory / "upper.new"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    work.mkdir(mode=0o700, exist_ok=True)
    if not upper.is_dir():
        root = os.stat(layers[0])
        made.mkdir(mode=0o700, exist_ok=True)
        os.chown(made, root.st_uid, root.st_gid)
        made.chmod(stat.S_IMODE(root.st_mode))
        made.rename(upper)
    return ImageRootfs(image_id, layers, directory, make_disk)
