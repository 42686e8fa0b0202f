"""Mount points that had to be made in an upper directory, and taking them out of it again.

Which ones had to be made is told from the layers below, before anything of them ran: what ran can
have changed every name since (CVE-2024-23652).  In the upper directory only descriptors count, no
link is followed, and only what is empty still goes.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from proa.image.layer import tree
from proa.image.layer.merged import Merged, is_opaque


def missing(layers: Sequence[Path], targets: Iterable[str]) -> tuple[bytes, ...]:
    """Relative paths that mounting at these targets makes, over these layers (topmost first)."""
    found: dict[bytes, None] = {}
    with Merged(layers) as files:
        for target in targets:
            path, names = files.resolve(os.fsencode(target))
            for name in names:
                path = posixpath.join(path, name)
                found[path] = None
    return tuple(found)


def left(upper: Path, layers: Sequence[Path], paths: Collection[bytes]) -> tuple[bytes, ...]:
    """Those of `paths` that are in `upper` and empty, and parents that are there for them alone.

    Children come before their parents.
    """
    root = os.open(upper, tree.DIRECTORY)
    try:
        found = [path for path in _deepest_first(paths) if not _is_used(root, path, paths)]
        parents = {parent for path in found for parent in _parents(path)} - set(paths)
        with Merged(layers) as files:
            for parent in _deepest_first(parents):
                if not _is_used(root, parent, found) and _is_copy(root, parent, files):
                    found.append(parent)
        return tuple(found)
    finally:
        os.close(root)


def remove(upper: Path, paths: Sequence[bytes]) -> None:
    """Remove empty files and directories that `left` has found."""
    root = os.open(upper, tree.DIRECTORY)
    try:
        for path in paths:
            parent = _open(root, posixpath.dirname(path))
            name = posixpath.basename(path)
            try:
                if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                    os.rmdir(name, dir_fd=parent)
                else:
                    os.unlink(name, dir_fd=parent)
            finally:
                os.close(parent)
    finally:
        os.close(root)


def _deepest_first(paths: Iterable[bytes]) -> list[bytes]:
    return sorted(paths, key=lambda path: (-path.count(b"/"), path))


def _parents(path: bytes) -> list[bytes]:
    parents: list[bytes] = []
    while path := posixpath.dirname(path):
        parents.append(path)
    return parents


def _open(root: int, path: bytes) -> int:
    """A directory below `root`, no link followed on the way."""
    fd = os.dup(root)
    for name in path.split(b"/") if path else ():
        try:
            below = os.open(name, tree.DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def _is_used(root: int, path: bytes, others: Collection[bytes]) -> bool:
    """Whether it is not there, or holds something beside `others`."""
    with suppress(OSError):
        parent = _open(root, posixpath.dirname(path))
        try:
            status = os.lstat(posixpath.basename(path), dir_fd=parent)
        finally:
            os.close(parent)
        if stat.S_ISREG(status.st_mode):
            return status.st_size > 0 or status.st_nlink > 1
        fd = _open(root, path)
        try:
            return any(
                posixpath.join(path, os.fsencode(name)) not in others for name in os.listdir(fd)
            )
        finally:
            os.close(fd)
    return True


def _is_copy(root: int, path: bytes, files: Merged) -> bool:
    """Whether a directory is in the upper only because something was made in it."""
    below = files.lookup(path)
    fd = _open(root, path)
    try:
        status = os.fstat(fd)
        return (
            below is not None
            and not is_opaque(fd)
            and (status.st_mode, status.st_uid, status.st_gid)
            == (below.status.st_mode, below.status.st_uid, below.status.st_gid)
        )
    finally:
        os.close(fd)
