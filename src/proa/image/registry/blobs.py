"""A blob as a stream: gone on with after a cut, never longer than promised, checked at its end."""

from __future__ import annotations

import hashlib
import re

from proa.errors import Corrupt, NotFound, ProaError, RegistryError
from proa.image import manifest
from proa.image.manifest import Descriptor
from proa.image.registry.client import Registry
from proa.image.registry.transport import Answer
from proa.image.registry.wire import Unreachable

CHUNK = 1 << 20
_CUTS = 5  # so many are too many, unless so much came between them:
_PROGRESS_BYTES = 1 << 20
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")


class Blob:
    """A blob read once, front to back, from the first endpoint that gives it.

    `mirrored` says whether mirrors may give it.
    """

    def __init__(
        self, registry: Registry, repository: str, wanted: Descriptor, mirrored: bool = True
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._wanted = wanted
        self._endpoints = list(registry.endpoints if mirrored else registry.endpoints[-1:])
        self._hash = hashlib.sha256()
        self._answer: Answer | None = None
        self._cuts = self._since_cut = 0
        self._behind = 0  # bytes that come again before new ones do
        self.offset = 0

    def skip(self, data: bytes) -> None:
        """The next bytes are known already; to be called before the first `read`."""
        self._hash.update(data)
        self.offset += len(data)

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end, once the digest was right.  Raises Corrupt."""
        while self.offset < self._wanted.size:
            answer = self._opened()
            try:
                while self._behind:
                    self._behind -= len(self._some(answer, min(CHUNK, self._behind)))
                return self._taken(self._some(answer, min(CHUNK, size)))
            except Unreachable as error:
                self._cut(error)
        self.close()
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._wanted.digest:
            raise self._corrupt(f"has digest '{found}'")
        return b""

    def _some(self, answer: Answer, size: int) -> bytes:
        data = answer.read(size)
        if not data:
            raise Unreachable(f"blob '{self._wanted.digest}' ends too early")
        return data

    def _taken(self, data: bytes) -> bytes:
        self.offset += len(data)
        if self.offset > self._wanted.size:
            raise self._corrupt(f"is longer than the promised '{self._wanted.size}' bytes")
        self._hash.update(data)
        self._since_cut += len(data)
        return data

    def _corrupt(self, what: str) -> Corrupt:
        return Corrupt(f"blob '{self._wanted.digest}' {what}")

    def close(self) -> None:
        """Leave the connection."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _cut(self, error: Unreachable) -> None:
        self.close()
        self._cuts = 1 if self._since_cut >= _PROGRESS_BYTES else self._cuts + 1
        self._since_cut = 0
        if self._cuts >= _CUTS:
            self._go_on_elsewhere(error)
        else:
            self._registry.transport.wait(self._cuts)

    def _go_on_elsewhere(self, error: ProaError) -> None:
        self._cuts = 0
        if len(self._endpoints) == 1:
            raise error
        del self._endpoints[0]

    def _opened(self) -> Answer:
        while self._answer is None:
            try:
                self._answer = self._registry.blob(
                    self._repository, self._wanted.digest, self.offset, self._endpoints[0]
                )
                self._check(self._answer)
            except (RegistryError, NotFound, Corrupt) as error:
                self.close()
                self._go_on_elsewhere(error)
        return self._answer

    def _check(self, answer: Answer) -> None:
        """What comes must be the rest, or the whole: then we are behind."""
        start = 0
        if answer.status == 206:
            said = _RANGE.fullmatch(answer.header("Content-Range"))
            if said is None or int(said[1]) != self.offset:
                raise self._corrupt("was asked for from its middle, another part came")
            start = self.offset
        if answer.length is not None and answer.length != self._wanted.size - start:
            raise self._corrupt(
                f"has '{answer.length + start}' bytes but '{self._wanted.size}' were promised"
            )
        self._behind = self.offset - start


def document(registry: Registry, repository: str, wanted: Descriptor, what: str) -> bytes:
    """A small blob, checked.  Raises Corrupt, RegistryError."""
    if wanted.size > manifest.MAXIMUM_DOCUMENT:
        raise Corrupt(f"{what} of '{wanted.size}' bytes is too large")
    try:
        return _whole(Blob(registry, repository, wanted))
    except Corrupt:
        if not registry.mirrored:
            raise
        return _whole(Blob(registry, repository, wanted, mirrored=False))


def _whole(blob: Blob) -> bytes:
    pieces = []
    try:
        while data := blob.read(CHUNK):
            pieces.append(data)
    finally:
        blob.close()
    return b"".join(pieces)
