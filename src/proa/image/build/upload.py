"""A build's context that came from elsewhere: a tar that was sent, or what a URL gives.

It is unpacked below a private directory that is gone at the end, like a layer: no name in it
leads out, and neither its size on the wire nor on the disk is without a bound.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from proa.errors import Corrupt, Invalid, NotFound
from proa.host import files
from proa.image.build import lines, remote
from proa.image.layer import tar, tree
from proa.image.layer.source import Source
from proa.image.layer.stream import decompressed
from proa.image.layer.tar import Entry
from proa.image.layer.unpack import unpack
from proa.image.store import Images

MAXIMUM_BYTES = 64 << 30
NAMES = ("Containerfile", "Dockerfile")  # looked for in this order
_DEVICES = (tar.CHARACTER, tar.BLOCKDEV)
_WHITEOUT = b".wh."
_BLOCK = 512
_MAGIC = slice(257, 262)


@dataclass(frozen=True)
class Arrived:
    """What a URL gave: a directory, or (when `containerfile` is not None) only that file."""

    directory: Path
    containerfile: bytes | None = None


@contextmanager
def received(images: Images, source: Source) -> Iterator[Path]:
    """The directory of a context that comes as a tar, compressed or not.

    Raises Corrupt for what is no tar, or a dangerous one.
    """
    with images.workspace() as work:
        yield _unpacked(source, work)


@contextmanager
def fetched(images: Images, url: str, check: remote.Check) -> Iterator[Arrived]:
    """What is at a URL: a repository, a tar, or a Containerfile.  Raises what remote.py raises."""
    with images.workspace() as work:
        if remote.is_git(url):
            found = remote.clone(url, work / "git", False, "", check)
            yield Arrived(_below(found.directory, found.name))
            return
        if not remote.is_remote(url):
            raise Invalid(f"cannot build from '{url[:100]}'", hint="give an http(s) or git URL")
        found = remote.fetch(url, work / "fetched", "", (check, lambda current, total: None))
        with (found.directory / found.name).open("rb", buffering=0) as file:
            if _is_archive(file):
                yield Arrived(_unpacked(file, work))
                return
            text = file.read(lines.MAXIMUM_BYTES + 1)
        (work / "context").mkdir(mode=0o755)
        yield Arrived(work / "context", text)


def containerfile(directory: Path, name: str = "") -> tuple[str, bytes]:
    """Name and text of the Containerfile in a context; without a name those of NAMES are tried.

    Raises NotFound, Invalid.
    """
    root = os.open(directory, tree.DIRECTORY)
    try:
        for one in (name,) if name else NAMES:
            try:
                fd = files.open_in_root(root, one, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            with open(fd, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise Invalid(f"'{one}' is no regular file")
                return one, file.read(lines.MAXIMUM_BYTES + 1)
    finally:
        os.close(root)
    raise NotFound(
        f"Cannot locate specified Dockerfile: {name or NAMES[0]}",
        hint="it must be in the context",
    )


def _below(directory: Path, name: str) -> Path:
    """A directory of a repository, which must not lead out of it by a link."""
    if not name:
        return directory
    root = os.open(directory, tree.DIRECTORY)
    try:
        os.close(files.open_in_root(root, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW))
        real = (directory / name).resolve()
    except OSError as error:
        raise NotFound(f"no directory '{name}' in the repository") from error
    finally:
        os.close(root)
    if not real.is_relative_to(directory.resolve()):
        raise Invalid(f"'{name}' leads out of the repository")
    return real


def _unpacked(source: Source, work: Path) -> Path:
    context, trash = work / "context", work / "trash"
    context.mkdir(mode=0o755)
    trash.mkdir(mode=0o700)
    with decompressed(source) as plain:
        unpack(_Bounded(plain), context, trash, _accept)
    return context


def _accept(entry: Entry) -> bool:
    """Devices stay out; what means "removed" in a layer means nothing in a context."""
    if any(name.startswith(_WHITEOUT) for name in entry.name.split(b"/")):
        shown = entry.name.decode("utf-8", "replace")
        raise Corrupt(f"a context cannot have a file called '{shown}'")
    return entry.kind not in _DEVICES


class _Bounded:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = MAXIMUM_BYTES

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Corrupt(f"the context has more than '{MAXIMUM_BYTES}' bytes")
        return data


def _is_archive(file: FileIO) -> bool:
    """Whether an open file is a tar under whatever compression; it is at its beginning again."""
    try:
        with decompressed(file) as plain:
            head = b""
            while len(head) < _BLOCK and (data := plain.read(_BLOCK - len(head))):
                head += data
    except Corrupt:
        head = b""
    file.seek(0)
    return head[_MAGIC] == b"ustar"
