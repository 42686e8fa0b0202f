"""The files of an archive, spooled to the stage under numbers and found by their names."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from proa.errors import Corrupt
from proa.image import reference
from proa.image.layer import tar
from proa.image.layer.stream import CHUNK, Source
from proa.image.manifest import Descriptor
from proa.image.staging import Spooled, Stage

MAXIMUM_MEMBERS = 100_000
BLOBS = "blobs/sha256/"


class Members:
    """The files of an archive by their name in it."""

    def __init__(self, source: Source, stage: Stage) -> None:
        self._files: dict[str, Spooled] = {}
        self._links: dict[str, str] = {}
        reader = tar.Reader(source)
        for count, entry in enumerate(reader):
            if count >= MAXIMUM_MEMBERS:
                raise Corrupt(f"the archive has more than '{MAXIMUM_MEMBERS}' files")
            name = _plain(entry.name)
            if entry.kind == tar.FILE and entry.segments is None:
                self._files[name] = _promised(name, stage.spool(_Chunks(reader.chunks())))
            elif entry.kind == tar.SYMLINK:
                beside = posixpath.dirname(_as_text(entry.name))
                self._links[name] = posixpath.normpath(f"/{beside}/{_as_text(entry.link)}")[1:]
            elif entry.kind == tar.HARDLINK:
                self._links[name] = _plain(entry.link)
        while source.read(CHUNK):  # what follows the archive belongs to the compression's checksum
            pass

    def find(self, name: str) -> Spooled | None:
        """The file of this name, through links inside the archive."""
        name = posixpath.normpath(name)
        for _ in range(8):
            if name in self._files or name not in self._links:
                break
            name = self._links[name]
        return self._files.get(name)

    def file(self, name: object) -> Spooled:
        """The file of this name, which must be there."""
        found = self.find(name) if isinstance(name, str) else None
        if found is None:
            raise Corrupt(f"the archive lacks the file '{str(name)[:200]}'")
        return found

    def blob(self, wanted: Descriptor) -> Spooled:
        """A blob by its digest and size."""
        found = self.file(BLOBS + reference.hexadecimal(wanted.digest))
        if found.digest != wanted.digest or found.size != wanted.size:
            raise Corrupt(
                f"blob '{wanted.digest}' has '{found.size}' bytes but '{wanted.size}' were promised"
            )
        return found


class _Chunks:
    """Pieces as a source; a piece is never larger than what is asked for at a time."""

    def __init__(self, chunks: Iterator[memoryview]) -> None:
        self._chunks = chunks

    def read(self, size: int, /) -> bytes:
        return bytes(next(self._chunks, b""))


def _as_text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _plain(name: bytes) -> str:
    return posixpath.normpath(f"/{_as_text(name)}").lstrip("/")


def _promised(name: str, found: Spooled) -> Spooled:
    """A file that is named by its digest must have it."""
    promised = name.removeprefix(BLOBS)
    if promised != name and found.digest != f"sha256:{promised}":
        raise Corrupt(
            f"layer '{promised[:12]}' has digest '{found.digest}' "
            f"but 'sha256:{promised[:80]}' was promised"
        )
    return found
