"""An image's merged layers as readers of facts see them (`advice.tree.Tree`): by descriptors."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from proa.advice.tree import DIRECTORY, FILE, LINK, NAMES_MAXIMUM, OTHER, TEXT_MAXIMUM, Entry
from proa.host import files
from proa.image.layer.mounted import mounted

_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class MountedTree:
    """Everything below a root's descriptor; nothing leads out of it, no call raises OSError."""

    def __init__(self, root: int) -> None:
        self._root = root

    def names(self, path: str) -> Sequence[str]:
        """The names in a directory, some when there are too many."""
        fd = self._open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            return ()
        try:
            with os.scandir(fd) as entries:
                return sorted(
                    entry.name for entry, _ in zip(entries, range(NAMES_MAXIMUM), strict=False)
                )
        except OSError:
            return ()
        finally:
            os.close(fd)

    def entries(self, path: str) -> Iterator[tuple[str, Entry]]:
        """The names with what they are."""
        fd = self._open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            return
        try:
            with os.scandir(fd) as found:
                for item, _ in zip(found, range(NAMES_MAXIMUM), strict=False):
                    yield item.name, _entry(item.stat(follow_symlinks=False))
        except OSError:
            return
        finally:
            os.close(fd)

    def look(self, path: str, *, follow: bool = True) -> Entry | None:
        """What is there."""
        fd = self._open(path or ".", os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        if fd < 0:
            return None
        try:
            return _entry(os.fstat(fd))
        finally:
            os.close(fd)

    def read(self, path: str, limit: int = TEXT_MAXIMUM) -> bytes:
        """The first bytes of a regular file."""
        fd = self._open(path, _READ)
        if fd < 0:
            return b""
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b""
            try:
                return file.read(limit)
            except OSError:
                return b""

    def target(self, path: str) -> str:
        """Where a link points."""
        fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        if fd < 0:
            return ""
        try:
            return os.readlink("", dir_fd=fd)
        except OSError:
            return ""
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        try:
            return files.open_in_root(self._root, path, flags)
        except (OSError, ValueError):
            return -1


def _entry(status: os.stat_result) -> Entry:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), OTHER)
    return Entry(kind, stat.S_IMODE(status.st_mode), status.st_size)


@contextmanager
def image_tree(layers: Sequence[Path]) -> Iterator[MountedTree]:
    """The tree of these layers, topmost first."""
    with mounted(layers) as root:
        yield MountedTree(root)
