"""What an upper directory changes about the layers below it, as `docker diff` tells it."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proa.image.layer.merged import Directory, Merged

ADDED, CHANGED, DELETED = "A", "C", "D"


@dataclass(frozen=True)
class _Pair:
    """A directory of the upper, and which layers below have one of that name."""

    path: bytes
    lowers: Sequence[int]
    opaque: bool  # a directory above hides what is below


def changes(upper: Path, lowers: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """(kind, absolute path) of each difference; kinds are A, C and D, `lowers` topmost first.

    A parent comes before its children.  Of a deleted directory only the directory is told.
    """
    with Merged([upper]) as above, Merged(lowers) as below:
        pending = [_Pair(b"", range(below.count), opaque=False)]
        while pending:
            pair = pending.pop()
            with ExitStack() as opened:
                try:
                    here = opened.enter_context(above.directory(pair.path, (0,)))
                except FileNotFoundError:  # of a running instance
                    continue
                there: Directory | None = None
                if pair.lowers:
                    there = opened.enter_context(below.directory(pair.path, pair.lowers))
                found, deeper = _compared(pair, here, there)
            yield from found
            pending += reversed(deeper)


def _compared(
    pair: _Pair, here: Directory, there: Directory | None
) -> tuple[list[tuple[str, bytes]], list[_Pair]]:
    before = pair.path + b"/" if pair.path else b""
    known = there.names if there is not None else {}
    opaque = pair.opaque or here.opaque
    found: list[tuple[str, bytes]] = []
    deeper: list[_Pair] = []
    gone = known.keys() - here.names.keys() if opaque else known.keys() & set(here.hidden)
    for name in sorted(gone | here.names.keys()):
        path = before + name
        if name in gone:
            found.append((DELETED, b"/" + path))
            continue
        old = known.get(name)
        found.append((CHANGED if old is not None else ADDED, b"/" + path))
        if stat.S_ISDIR(here.names[name].status.st_mode):
            same = old is not None and stat.S_ISDIR(old.status.st_mode)
            deeper.append(_Pair(path, old.layers if old and same else (), opaque))
    return found, deeper
