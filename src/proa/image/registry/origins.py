"""Which repositories are known to have a blob: those that images were pulled from or pushed to.

Nothing is recorded for this: an image's repository digests say it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from proa.errors import ProaError
from proa.image import reference
from proa.image.assembly import Shelves
from proa.image.layout import Named
from proa.image.manifest import Manifest

MAXIMUM_SOURCES = 3  # tried for one blob


@dataclass(frozen=True)
class Sources:
    """Repositories by the digest of what they have."""

    known: dict[str, list[str]] = field(default_factory=dict)

    def of(self, digest: str) -> list[str]:
        """Where a blob can be mounted from, the most recent first."""
        return self.known.get(digest, [])[:MAXIMUM_SOURCES]

    def repositories(self) -> list[str]:
        """All of them."""
        return sorted({name for names in self.known.values() for name in names})


def sources(shelves: Shelves, registry: str, but: str) -> Sources:
    """What the repositories of a registry have; `but` is the one that is pushed to."""
    known: dict[str, list[str]] = defaultdict(list)
    for line, parts in reversed(list(_lines(shelves))):
        name = reference.parse(line.name)
        if name.digest and name.registry == registry and name.path != but:
            for blob in (parts.config, *parts.layers):
                if name.path not in known[blob.digest]:
                    known[blob.digest].append(name.path)
    return Sources(dict(known))


def manifests(shelves: Shelves) -> Iterator[Manifest]:
    """The manifest of every repository digest."""
    for line, parts in _lines(shelves):
        if reference.parse(line.name).digest:
            yield parts


def _lines(shelves: Shelves) -> Iterator[tuple[Named, Manifest]]:
    """Every named line of the index with its manifest; damaged ones are left out."""
    for line in shelves.layout.read_index():
        if not line.name or line.subject:
            continue
        try:
            yield line, shelves.catalog.parse(line.manifest.digest)[0]
        except ProaError:
            continue
