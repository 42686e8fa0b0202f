"""An image's files as one tree, looked at and copied from without trusting a single name in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt
from proa.host import files, mounts
from proa.image.layer import tree

_BLOCK = 4096
KERNEL_MAXIMUM_BYTES = 128 << 20


@contextmanager
def merged(layers: Sequence[Path], empty: Path) -> Iterator[int]:
    """A descriptor of the layers (topmost first) as one read-only file system, mounted nowhere.

    `empty` is a directory nothing is in: an overlay wants two layers at least.
    """
    with ExitStack() as opened:
        roots = []
        for path in (*layers, empty):
            roots.append(os.open(path, tree.DIRECTORY))
            opened.callback(os.close, roots[-1])
        mounted = mounts.overlay(roots)
    try:
        # The mount itself is opened for listing: its own descriptor is for passing on only.
        root = os.open(f"/proc/self/fd/{mounted}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield root
        finally:
            os.close(root)
    finally:
        os.close(mounted)


@dataclass(frozen=True)
class Extent:
    """How much there is: names, and bytes they take in blocks of 4 KiB."""

    names: int
    used_bytes: int


def measure(root: int) -> Extent:
    """Walk everything; hard links count once."""
    names = used = 0
    seen: set[tuple[int, int]] = set()
    for _, directories, plain, fd in os.fwalk(".", dir_fd=root):
        names += len(directories) + len(plain)
        used += _BLOCK
        for name in plain:
            facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if facts.st_nlink > 1:
                key = (facts.st_dev, facts.st_ino)
                if key in seen:
                    continue
                seen.add(key)
            used += -(-min(facts.st_size, facts.st_blocks * 512) // _BLOCK) * _BLOCK
    return Extent(names, used)


def read(root: int, path: str, limit: int = KERNEL_MAXIMUM_BYTES) -> bytes | None:
    """A regular file's content, links followed within the tree; None when there is none."""
    try:
        fd = files.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            return None
        if facts.st_size > limit:
            raise Corrupt(f"the image's '{path}' is too large: '{facts.st_size}' bytes")
        return file.read(limit)


def names(root: int, path: str) -> list[str]:
    """The names in a directory, sorted; none when there is no such directory."""
    try:
        fd = files.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def resolved(root: int, path: str) -> str:
    """The last part of what a path leads to, when that is an executable file; else empty."""
    try:
        fd = files.open_in_root(root, path, os.O_PATH)
    except OSError:
        return ""
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or not facts.st_mode & 0o111:
            return ""
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
