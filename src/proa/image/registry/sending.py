"""One blob on its way to a registry: present already, mounted, or sent and resumed after a cut."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt, NotFound, RegistryError, Unauthorized
from proa.image.registry import uploads
from proa.image.registry.client import Registry
from proa.image.registry.uploads import Upload
from proa.image.registry.wire import Unreachable

CHUNK_BYTES = 128 << 20  # of one request; a blob that fits goes in one
PIECE_BYTES = 256 << 10
ATTEMPTS = 5
PAUSE_SECONDS = 0.25
_FORGOTTEN = frozenset({400, 404, 416})  # the registry knows nothing of this upload any more


@dataclass(frozen=True)
class Parcel:
    """A blob to send: a file, all of it."""

    digest: str
    size: int
    path: Path


@dataclass(frozen=True)
class Target:
    """Where blobs go; `pause` waits between attempts."""

    registry: Registry
    repository: str
    chunk_bytes: int = CHUNK_BYTES
    pause: Callable[[float], object] = time.sleep


def deliver(
    target: Target, parcel: Parcel, sources: Sequence[str], told: Callable[[int], None]
) -> str:
    """See that the registry has the blob: how that came, `present`, `mounted SOURCE` or `sent`.

    `sources` are repositories of that registry which may have it; `told` hears how many bytes
    have been sent.
    """
    if target.registry.has_blob(target.repository, parcel.digest):
        return "present"
    begun: Upload | None = None
    for source in sources:
        try:
            begun = uploads.mount(target.registry, target.repository, parcel.digest, source)
        except (Unauthorized, NotFound, RegistryError):
            continue  # a mount saves time; without it the blob is sent
        if begun is None:
            return f"mounted {source}"
    _Delivery(target, parcel, told).run(begun)
    return "sent"


class _Delivery:
    """Sends a blob; goes on from where the registry is after a failure that may pass."""

    def __init__(self, target: Target, parcel: Parcel, told: Callable[[int], None]) -> None:
        self._target = target
        self._registry = target.registry
        self._parcel = parcel
        self._told = told
        self._resumed = False

    def run(self, begun: Upload | None) -> None:
        """Send it.  Raises RegistryError when that fails for good."""
        failures, furthest = 0, 0
        upload = begun
        while True:
            try:
                upload = upload or uploads.start(self._registry, self._target.repository)
                upload = self._chunk(upload)
                if upload is None:
                    return
            except Unreachable:
                if upload is not None and upload.offset > furthest:
                    failures, furthest = 0, upload.offset  # it came further: patience anew
                failures += 1
                if failures == ATTEMPTS:
                    raise
                self._target.pause(PAUSE_SECONDS * 2**failures * random.uniform(0.5, 1))
                upload = self._stand(upload)
            except (Corrupt, NotFound, RegistryError) as error:
                if not self._resumed or isinstance(error, Unauthorized):
                    raise
                upload, self._resumed = None, False  # what it kept was not what was sent

    def _chunk(self, upload: Upload) -> Upload | None:
        """Send the next piece; None when that was the last."""
        left = self._parcel.size - upload.offset
        if left <= self._target.chunk_bytes and upload.offset == 0:
            uploads.finish(self._registry, upload, self._parcel.digest, self._body(0, left), left)
            return None
        if left:
            length = min(left, self._target.chunk_bytes)
            return uploads.patch(self._registry, upload, self._body(upload.offset, length), length)
        uploads.finish(self._registry, upload, self._parcel.digest)
        return None

    def _body(self, start: int, length: int) -> Callable[[], Iterator[bytes]]:
        def pieces() -> Iterator[bytes]:
            done = start
            with self._parcel.path.open("rb", buffering=0) as file:
                file.seek(start)
                while done < start + length:
                    data = file.read(min(PIECE_BYTES, start + length - done))
                    if not data:
                        raise Corrupt(f"blob '{self._parcel.digest}' is shorter than it was")
                    yield data
                    done += len(data)
                    self._told(done)

        return pieces

    def _stand(self, upload: Upload | None) -> Upload | None:
        """Where to go on; None for from the beginning."""
        if upload is None:
            return None
        try:
            found = uploads.stand(self._registry, upload)
        except (NotFound, RegistryError) as error:
            if isinstance(error, Unreachable) or getattr(error, "status", 404) in _FORGOTTEN:
                return None
            raise
        if not 0 < found.offset <= self._parcel.size:
            return None
        self._resumed = True
        return found
