"""Directories of layers, merged by name as overlayfs does it, without mounting anything."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Invalid
from proa.image.layer import tree

OPAQUE = "trusted.overlay.opaque"
MAXIMUM_LINKS = 40  # as the kernel has it


@dataclass(frozen=True)
class Name:
    """A name in a merged directory; `layers` (topmost first) are those a directory merges."""

    status: os.stat_result
    layers: list[int]


@dataclass(frozen=True)
class Directory:
    """One merged directory; its descriptors, topmost layer first, are good while it is open.

    `hidden` are the whiteouts of the topmost layer, `opaque` whether that hides all below it.
    """

    descriptors: dict[int, int]
    opaque: bool
    names: dict[bytes, Name]
    hidden: list[bytes]

    @property
    def top(self) -> int:
        """Its descriptor in the topmost layer that has it."""
        return next(iter(self.descriptors.values()))


class Merged:
    """Layers, topmost first; a context."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.count = len(roots)
        self._roots: list[int] = []
        with ExitStack() as undo:
            for root in roots:
                self._roots.append(os.open(root, tree.DIRECTORY))
                undo.callback(os.close, self._roots[-1])
            self._close = undo.pop_all()

    def __enter__(self) -> Merged:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def lookup(self, path: bytes) -> Name | None:
        """What a relative path without links in its parents names; of layers nobody changes."""
        having: Sequence[int] = range(self.count)
        found: Name | None = None
        end = -1
        while end < len(path):
            end = path.find(b"/", end + 1) % (len(path) + 1)
            found = self._of(path[:end], having)
            if found is None or not stat.S_ISDIR(found.status.st_mode):
                return found if end == len(path) else None
            having = found.layers
        return found

    def _of(self, path: bytes, having: Sequence[int]) -> Name | None:
        found: Name | None = None
        for layer in having:
            try:
                status = os.stat(path, dir_fd=self._roots[layer], follow_symlinks=False)
            except FileNotFoundError:
                continue
            if is_whiteout(status):
                break
            directory = stat.S_ISDIR(status.st_mode)
            if found is None:
                found = Name(status, [layer])
            elif directory:
                found.layers.append(layer)
            if not directory or self._is_opaque(layer, path):
                break
        return found

    def _is_opaque(self, layer: int, path: bytes) -> bool:
        fd = tree.open_directory(self._roots[layer], path)
        try:
            return is_opaque(fd)
        finally:
            os.close(fd)

    def resolve(self, path: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """The real path of what is there of a path, links followed below the root, and the names
        that are missing.  Raises Invalid for too many links.
        """
        here: list[bytes] = []
        ahead = path.split(b"/")[::-1]
        links = 0
        while ahead:
            part = ahead.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del here[-1:]
                continue
            found = self.lookup(b"/".join([*here, part]))
            if found is None:
                missing = [item for item in [part, *ahead[::-1]] if item not in (b"", b".", b"..")]
                return b"/".join(here), tuple(missing)
            if not stat.S_ISLNK(found.status.st_mode):
                here.append(part)
                continue
            links += 1
            if links > MAXIMUM_LINKS:
                raise Invalid(f"too many links in '{os.fsdecode(path)}'")
            target = os.readlink(b"/".join([*here, part]), dir_fd=self._roots[found.layers[0]])
            here = [] if target.startswith(b"/") else here
            ahead += target.split(b"/")[::-1]
        return b"/".join(here), ()

    @contextmanager
    def directory(self, path: bytes, layers: Sequence[int]) -> Iterator[Directory]:
        """The directory `path` (relative, empty for the root) as these layers have it.

        Raises FileNotFoundError when it has gone meanwhile.
        """
        with ExitStack() as opened:
            descriptors: dict[int, int] = {}
            opaque: list[int] = []
            for layer in layers:
                try:
                    fd = tree.open_directory(self._roots[layer], path)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                opened.callback(os.close, fd)
                descriptors[layer] = fd
                if is_opaque(fd):
                    opaque.append(layer)
                    break
            if not descriptors:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            names, hidden = _merge(descriptors)
            yield Directory(descriptors, opaque[:1] == [next(iter(descriptors))], names, hidden)


def _merge(descriptors: dict[int, int]) -> tuple[dict[bytes, Name], list[bytes]]:
    """The names, and the whiteouts of the topmost layer."""
    names: dict[bytes, Name] = {}
    hidden: list[bytes] = []
    settled: set[bytes] = set()  # what layers further below no longer add to
    top = next(iter(descriptors))
    for layer, fd in descriptors.items():
        for name, status in _listed(fd):
            if name in settled:
                continue
            if is_whiteout(status):
                settled.add(name)
                if layer == top:
                    hidden.append(name)
            elif name not in names:
                names[name] = Name(status, [layer])
                if not stat.S_ISDIR(status.st_mode):
                    settled.add(name)
            elif stat.S_ISDIR(status.st_mode):
                names[name].layers.append(layer)
            else:
                settled.add(name)
    return names, hidden


def _listed(fd: int) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                yield os.fsencode(entry.name), entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # of a running instance
                continue


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it hides a name of the layers below."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether a directory hides its namesakes in the layers below."""
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:
        return False
