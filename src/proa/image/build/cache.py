"""The build cache: which layer a step gave, by everything the step depends on.

A key is a digest of the whole chain of layers below, the step's effective text and the content it
reads, so a record can only be found by a build that would do the very same (CVE-2024-24557).
Records are made by builds alone: nothing that was pulled or loaded becomes one.  They keep their
layers from the collector.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.errors import HostError
from proa.image.build import walk

FORMAT = 1  # part of every key: raised when steps come to mean something else
_MAXIMUM_FILES = 1_000_000  # remembered digests
_SETTLED_NS = 10**9  # a file changed more recently may change again within the clock's tick
_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps(
    key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, text TEXT NOT NULL, created TEXT NOT NULL,
    made REAL NOT NULL, used REAL NOT NULL, uses INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files(
    device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER, digest BLOB,
    PRIMARY KEY(device, inode)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Record:
    """What a step gave: `created` is what the image's history says of it; times in seconds."""

    key: str
    diff_id: str
    text: str
    created: str
    made: float = 0
    used: float = 0
    uses: int = 0


def key(*parts: Any) -> str:
    """The key of everything a step depends on: values JSON can hold."""
    data = json.dumps([FORMAT, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(data.encode("utf-8", "surrogateescape")).hexdigest()


def chain(below: str, diff_id: str) -> str:
    """Names a stack of layers: the stack `below` with a layer on top."""
    return hashlib.sha256(f"{below} {diff_id}".encode()).hexdigest()


class Cache:
    """The records below `directory`; safe for threads and for other processes."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "cache.db"
        self._guard = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._used: dict[str, float] = {}
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.files = Files(self._rows)

    # -- the database ---------------------------------------------------------------------------

    def _rows(self, text: str, values: Sequence[Any] = (), many: bool = False) -> list[Any]:
        """Execute a statement; what cannot be read is begun anew."""
        with self._guard:
            try:
                return self._execute(text, values, many)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise HostError(f"cannot use the build cache: {error}") from error
            self._start_again()
            return self._execute(text, values, many)

    def _execute(self, text: str, values: Sequence[Any], many: bool) -> list[Any]:
        if self._database is None:
            self._database = self._opened()
        with self._database as database:
            run = database.executemany if many else database.execute
            return run(text, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(_SCHEMA)
        return database

    def _start_again(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    # -- records --------------------------------------------------------------------------------

    def find(self, key: str) -> Record | None:
        """What the step of this key gave."""
        rows = self._rows("SELECT * FROM steps WHERE key = ?", (key,))
        if not rows:
            return None
        self._used[key] = time.time()
        return Record(*rows[0])

    def put(self, record: Record) -> None:
        """Keep what a step gave."""
        now = time.time()
        values = (record.key, record.diff_id, record.text, record.created, now, now, 1)
        self._rows("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def all(self) -> list[Record]:
        """Every record, the latest used first."""
        self.flush()
        return [Record(*row) for row in self._rows("SELECT * FROM steps ORDER BY used DESC")]

    def forget(self, keys: Sequence[str]) -> None:
        """Drop records; their layers go with the next collection."""
        self._rows("DELETE FROM steps WHERE key = ?", [(key,) for key in keys], many=True)

    def flush(self) -> None:
        """Write down what was used and which files were read."""
        used, self._used = self._used, {}
        if used:
            self._rows(
                "UPDATE steps SET used = ?, uses = uses + 1 WHERE key = ?",
                [(moment, key) for key, moment in used.items()],
                many=True,
            )
        self.files.flush()

    def keeps(self) -> set[str]:
        """Digests of the layers that records need."""
        if self._database is None and not self._path.exists():
            return set()
        return {row[0] for row in self._rows("SELECT DISTINCT diff_id FROM steps")}

    @contextmanager
    def alone(self, key: str, wait: Callable[[], None]) -> Iterator[None]:
        """One build at a time makes what the key is about; `wait` is called while another does."""
        with self._guard:
            lock = self._busy[key]
        while not lock.acquire(timeout=0.05):
            wait()
        try:
            yield
        finally:
            lock.release()
            with self._guard:
                if not lock.locked():
                    self._busy.pop(key, None)


class Files(walk.Memory):
    """Digests of files by what stat(2) says of them: device, inode, size and both times."""

    def __init__(self, rows: Callable[..., list[Any]]) -> None:
        self._rows = rows
        self._new: dict[tuple[int, int], tuple[int, int, int, bytes]] = {}

    def get(self, status: os.stat_result) -> bytes | None:
        """The digest of a file that has not changed since."""
        where = (status.st_dev, status.st_ino)
        said = self._new.get(where)
        if said is None:
            query = "SELECT size, mtime, ctime, digest FROM files WHERE device = ? AND inode = ?"
            rows = self._rows(query, where)
            said = rows[0] if rows else None
        if said is None or tuple(said[:3]) != _stamp(status):
            return None
        return bytes(said[3])

    def put(self, status: os.stat_result, digest: bytes) -> None:
        """Keep it, unless the file changed a moment ago."""
        if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
            self._new[status.st_dev, status.st_ino] = (*_stamp(status), digest)

    def flush(self) -> None:
        """Write down what is new."""
        new, self._new = self._new, {}
        if not new:
            return
        if self._rows("SELECT count(*) FROM files")[0][0] > _MAXIMUM_FILES:
            self._rows("DELETE FROM files")
        self._rows(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
            [(*where, *said) for where, said in new.items()],
            many=True,
        )


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
