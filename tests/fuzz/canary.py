"""A place to unpack in, beside files that nothing may touch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proa.host import files


@contextmanager
def watched() -> Iterator[tuple[Path, Path]]:
    """A root and a trash directory; fails when something beside them has changed."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for part in ("root", "trash", "canary"):
            (top / part).mkdir()
        (top / "canary/file").write_bytes(b"unread")
        before = _facts(top)
        try:
            yield top / "root", top / "trash"
        finally:
            assert _facts(top) == before, "something beside the directory changed"
            files.remove_tree(top / "root")
            files.remove_tree(top / "trash")


def _facts(top: Path) -> list[object]:
    found = (top / "canary").stat(), (top / "canary/file").stat()
    status = [(item.st_mode, item.st_uid, item.st_nlink, item.st_ctime_ns) for item in found]
    return [sorted(os.listdir(top)), os.listdir(top / "canary"), status]
