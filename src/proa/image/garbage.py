"""Garbage: blobs, unpacked layers and disks that nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from proa.errors import ProaError
from proa.image import referrers
from proa.image.catalog import Catalog
from proa.image.layer import tree
from proa.image.layer.unpacked import facts_at
from proa.image.layout import Layout, Named

Keeper = Callable[[], set[str]]  # digests of layers (diff ids) and blobs that must stay


KEPT_SECONDS = 7 * 24 * 3600.0  # halves of blobs, and what came in for an image that never did


def collect(
    layout: Layout, catalog: Catalog, keepers: Iterable[Keeper], kept_seconds: float = KEPT_SECONDS
) -> int:
    """Remove what neither an image, nor a keeper, nor anybody at work needs.

    Gives the bytes of the disk that are free now.  What a pull was cut off in goes as well when
    it is older than `kept_seconds`.
    """
    kept = {digest.removeprefix("sha256:") for keeper in keepers for digest in keeper()}
    with tree.reporting("collect garbage"), layout.workspace() as work:
        with layout.lock():
            lines = _without_orphans(layout)
            live = _live(layout, catalog, lines)
            if live is not None:
                layout.sweep_partial(live, kept_seconds, work)
                kept |= layout.held() | layout.arrivals()
                layout.move_dead(live | _with_blobs(layout, kept), work)
        catalog.forget()
        return sum(tree.disk_bytes(path) - _own(path) for path in work.iterdir() if path.is_dir())


def _own(directory: Path) -> int:
    return directory.stat().st_blocks * 512


def _without_orphans(layout: Layout) -> list[Named]:
    """The index, once artifacts about images that are gone are gone too."""
    lines = layout.read_index()
    kept = [line for line in lines if not line.subject]
    waiting = [line for line in lines if line.subject]
    while True:
        there = {digest for line in kept for digest in line.digests}
        found = [line for line in waiting if line.subject in there]
        if not found:
            break
        kept += found
        waiting = [line for line in waiting if line not in found]
    if waiting:
        layout.write_index(kept)
    return kept


def _live(layout: Layout, catalog: Catalog, lines: Sequence[Named]) -> set[str] | None:
    """Hex digests of all that images need; None when a damaged one makes that unknowable."""
    live: set[str] = set()
    try:
        for line in lines:
            if line.subject:
                live.update(digest[7:] for digest in referrers.parts(layout, line))
                continue
            parts, details = catalog.parse(line.manifest.digest)
            digests = (line.manifest.digest, parts.config.digest, *details.diff_ids)
            live.update(digest[7:] for digest in digests)
            live.update(layer.digest[7:] for layer in parts.layers)
            live.update(digest[7:] for digest in line.digests)
    except ProaError:
        return None
    return live


def _with_blobs(layout: Layout, kept: set[str]) -> set[str]:
    """With every layer, the blob it was made with."""
    blobs = set()
    for name in kept:
        try:
            facts = facts_at(layout.layers / name)
        except ProaError:
            continue
        if facts is not None and facts.blob is not None:
            blobs.add(facts.digest[7:])
    return kept | blobs
