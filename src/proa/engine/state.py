"""What the engine remembers: one SQLite database in WAL mode, one writer.

An instance is one row, its record as JSON.  A record is written before anything it names is
acquired and after anything is released, so that recovery can always derive what to undo.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from proa.errors import Conflict, Corrupt, NoSpace

ROOM_BYTES = 1 << 20
CHECKPOINT_PAGES = 64  # a quarter of that room, so that the log begins anew long before its end
SCHEMA = """
CREATE TABLE IF NOT EXISTS instances
    (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS room (filler BLOB);
"""


class State:
    """Records of instances, by id."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.touch(mode=0o600)  # it holds environments
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            self._database.executescript(SCHEMA)
            self._make_room()
        except sqlite3.DatabaseError as error:
            raise Corrupt(
                f"the state database '{path}' cannot be read: {error}",
                hint="move it away; instances then have to be removed by hand",
            ) from error

    def _make_room(self) -> None:
        """Grow database and log once, and free the room inside them again.

        So instances can still be recorded as ended, and removed, when the disk is full.
        """
        with contextlib.suppress(sqlite3.OperationalError):  # it is full already
            self._database.execute("INSERT INTO room VALUES (zeroblob(?))", (ROOM_BYTES,))
        self._database.execute("DELETE FROM room")
        self._database.execute("PRAGMA wal_checkpoint(RESTART)")

    def insert(self, id: str, name: str, record: dict[str, Any]) -> None:
        """Add a record.  Raises Conflict when the name is taken."""
        try:
            self._execute("INSERT INTO instances VALUES (?, ?, ?)", id, name, json.dumps(record))
        except sqlite3.IntegrityError:
            raise Conflict(
                f"the name '{name}' is already in use", hint="remove or rename that instance"
            ) from None

    def update(self, id: str, name: str, record: dict[str, Any]) -> None:
        """Replace a record.  Raises Conflict when the new name is taken."""
        try:
            self._execute(
                "UPDATE instances SET name=?, record=? WHERE id=?", name, json.dumps(record), id
            )
        except sqlite3.IntegrityError:
            raise Conflict(f"the name '{name}' is already in use") from None

    def delete(self, id: str) -> None:
        """Forget a record; idempotent."""
        self._execute("DELETE FROM instances WHERE id=?", id)

    def records(self) -> list[dict[str, Any]]:
        """Every record.  A row that cannot be parsed raises Corrupt, naming it."""
        with self._lock:
            rows = self._database.execute("SELECT id, record FROM instances").fetchall()
        try:
            return [json.loads(record) for _, record in rows]
        except ValueError as error:
            raise Corrupt(
                f"an instance record in the state database is damaged: {error}"
            ) from error

    def close(self) -> None:
        """Flush and close."""
        with self._lock:
            self._database.close()

    def _execute(self, statement: str, *values: str) -> None:
        try:
            with self._lock:
                self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise NoSpace(
                f"the state database cannot be written: {error}", hint="free some disk space"
            ) from error
