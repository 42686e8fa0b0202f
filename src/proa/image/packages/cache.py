"""What builds keep for the next one, and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from proa.host import files

KEPT_SECONDS = 30 * 86400
_FIXED = ("archives", "partial", "lock")


def used(path: Path) -> None:
    """It was of use: it stays for another while."""
    with suppress(FileNotFoundError):
        os.utime(path)


def expire(cache: Path) -> int:
    """Remove what no build has used for `KEPT_SECONDS`; how many files and directories.

    A build at work has marked what it uses, so it loses nothing.
    """
    oldest = time.time() - KEPT_SECONDS
    gone = 0
    for path in _entries(cache):
        if path.lstat().st_mtime < oldest:
            files.remove_tree(path)
            gone += 1
    return gone


def _entries(cache: Path) -> Iterator[Path]:
    for directory in ("bases", "deb", "deb/archives", "rpm"):
        with suppress(FileNotFoundError):
            for path in list((cache / directory).iterdir()):
                if path.name not in _FIXED:
                    yield path
