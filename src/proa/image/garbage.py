"""Garbage: blobs, unpacked layers and disks that nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from proa.errors import ProaError
from proa.image import referrers
from proa.image.catalog import Catalog
from proa.image.layer import tree
from proa.image.layer.unpacked import facts_at
from proa.image.layout import Layout, Named

Keeper = Callable[[], set[str]]  # digests of layers (diff ids) and blobs that must stay


def collect(layout: Layout, catalog: Catalog, keepers: Iterable[Keeper]) -> None:
    """Remove what neither an image, nor a keeper, nor anybody at work needs."""
    kept = {digest.removeprefix("sha256:") for keeper in keepers for digest in keeper()}
    with tree.reporting("collect garbage"), layout.workspace() as work, layout.lock():
        lines = _without_orphans(layout)
        live = _live(layout, catalog, lines)
        if live is not None:
            live |= _with_blobs(layout, kept | layout.held())
            layout.move_dead(live, work)
        catalog.forget()


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
