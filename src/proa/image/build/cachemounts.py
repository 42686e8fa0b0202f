"""`RUN --mount=type=cache`: directories of the store that outlive a build, by id.

    mounts/<hash>/<number>/data     one copy; private mounts in use at once have one each
    mounts/<hash>/<number>/lock     held shared or alone by steps, alone by whoever prunes

The hash is of the id and of what the directory begins with, so no id is ever part of a path
(CVE-2024-9675).  A `source` inside is opened once and handed on as a descriptor, so that no
step that runs beside can swap it (CVE-2024-23651, CVE-2024-11218).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Invalid
from proa.host import files
from proa.image.build.place import Target
from proa.image.layer import tree

_MAXIMUM_COPIES = 100


@dataclass(frozen=True)
class CacheMount:
    """One cache mount; `seed` names what its directory begins with ("" for nothing)."""

    id: str
    sharing: str = "shared"
    source: str = ""
    seed: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o755


@dataclass(frozen=True)
class CacheUsage:
    """One copy of a cache: its directory's name, its id, whether a step uses it; seconds."""

    name: str
    id: str
    busy: bool
    size_bytes: int
    made: float
    used: float


class CacheMounts:
    """All cache mounts of a store, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def use(
        self, mount: CacheMount, fill: Callable[[Target], None], wait: Callable[[], None]
    ) -> Iterator[Path]:
        """The directory to mount, while a step runs; `fill` makes its first content.

        The path is good in this process, for as long as the step runs.
        """
        with ExitStack() as opened:
            place = self._taken(opened, mount, wait)
            data = place / "data"
            os.utime(place / "lock")
            if not data.exists():
                self._make(place, mount, fill, wait)
            if not mount.source.strip("/"):
                yield data
                return
            top = os.open(data, tree.DIRECTORY)
            opened.callback(os.close, top)
            try:
                fd = files.open_in_root(top, mount.source, os.O_PATH | os.O_DIRECTORY)
            except OSError as error:
                raise Invalid(
                    f"no directory '{mount.source}' in the cache '{mount.id}'",
                    hint="leave 'source' out, or fill the cache with 'from'",
                ) from error
            opened.callback(os.close, fd)
            yield Path(f"/proc/self/fd/{fd}")

    def _taken(self, opened: ExitStack, mount: CacheMount, wait: Callable[[], None]) -> Path:
        """A copy that this step may use, locked as its sharing demands."""
        words = (mount.id, mount.seed, f"{mount.uid}:{mount.gid}:{mount.mode:o}")
        name = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()
        how = fcntl.LOCK_SH if mount.sharing == "shared" else fcntl.LOCK_EX
        copies = _MAXIMUM_COPIES if mount.sharing == "private" else 1
        while True:
            for number in range(copies):
                place = self._directory / name / str(number)
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
                if _lock(opened, place, how):
                    return place
            wait()

    def _make(
        self, place: Path, mount: CacheMount, fill: Callable[[Target], None],
        wait: Callable[[], None],
    ) -> None:  # fmt: skip
        with files.Lock(place / "making"):
            if (place / "data").exists():
                return
            made = place / "made"
            files.remove_tree(made)
            made.mkdir(mode=0o700)
            fd = os.open(made, tree.DIRECTORY)
            try:
                os.fchown(fd, mount.uid, mount.gid)
                os.fchmod(fd, mount.mode)
                with Target(fd, wait) as target:
                    fill(target)
            finally:
                os.close(fd)
            (place / "id").write_text(mount.id, "utf-8", "surrogateescape")
            made.rename(place / "data")

    # -- keeping house --------------------------------------------------------------------------

    def all(self) -> list[CacheUsage]:
        """Every copy there is."""
        found = []
        for place in self._places():
            with ExitStack() as opened, suppress(OSError):  # it may go meanwhile
                busy = not _lock(opened, place, fcntl.LOCK_EX)
                status = os.stat(place / "lock")
                id = (place / "id").read_text("utf-8", "surrogateescape")
                size = tree.disk_bytes(place)
                found.append(
                    CacheUsage(place.parent.name, id, busy, size, status.st_ctime, status.st_mtime)
                )
        return found

    def prune(self) -> int:
        """Remove what no step uses; the bytes that are free now."""
        freed = 0
        for place in self._places():
            with ExitStack() as opened, suppress(FileNotFoundError):
                if _lock(opened, place, fcntl.LOCK_EX):
                    size = tree.disk_bytes(place)
                    files.remove_tree(place)
                    freed += size
        return freed

    def _places(self) -> list[Path]:
        if not self._directory.is_dir():
            return []
        return [place for name in self._directory.iterdir() for place in name.iterdir()]


def _lock(opened: ExitStack, place: Path, how: int) -> bool:
    """Lock a copy until the stack ends, when nobody is in the way and it is still there."""
    path = place / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(fd), os.stat(path)):
            raise BlockingIOError
    except BlockingIOError:
        os.close(fd)
        return False
    opened.callback(os.close, fd)
    return True
