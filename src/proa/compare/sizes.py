"""How large each form is on disk, and where the bytes went."""

from __future__ import annotations

from collections.abc import Sequence

from proa.client.sdk import Client
from proa.compare.forms import Way
from proa.compare.gathered import SIZES, Gathered
from proa.costs import Part
from proa.errors import ProaError


def gather(client: Client, ways: Sequence[Way], gathered: Gathered) -> dict[str, tuple[Part, ...]]:
    """Add every way's sizes; gives the ledger of each."""
    ledgers: dict[str, tuple[Part, ...]] = {}
    for way in ways:
        name = way.image or str(way.options["machine"]["Disk"])
        try:
            found = client.sizes(name, inside=not way.image, compress=bool(way.image))
        except ProaError as error:
            gathered.leave(f"size of {way.form.title}", error.message)
            continue
        added = found.vm if way.form.isolation == "vm" else ()
        figures = {
            "size.compressed": found.compressed_bytes,
            "size.unpacked": found.unpacked_bytes,
            "size.unique": found.unique_bytes,
            "size.added": sum(part.bytes for part in added),
            "size.disk": found.unpacked_bytes + sum(part.bytes for part in added),
        }
        for key, value in figures.items():
            gathered.described[key] = SIZES[key]
            gathered.add(key, way.key, float(value))
        ledgers[way.key] = (*found.ledger, *added)
    return ledgers
