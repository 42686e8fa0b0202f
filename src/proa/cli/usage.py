"""What takes the disk, and making room."""

from __future__ import annotations

import sys

from proa.cli import filters, format, session
from proa.cli.format import Column
from proa.cli.image import split_name
from proa.cli.options import Command, Option, Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    Column("TYPE", "Type"), Column("TOTAL", "TotalCount"), Column("ACTIVE", "Active"),
    Column("SIZE", "Size"), Column("RECLAIMABLE", "Reclaimable"),
)  # fmt: skip
_IMAGE_COLUMNS = (
    Column("REPOSITORY", "Repository"), Column("TAG", "Tag"), Column("IMAGE ID", "ID"),
    Column("SIZE", "Size"), Column("SHARED SIZE", "SharedSize"),
    Column("UNIQUE SIZE", "UniqueSize"), Column("INSTANCES", "Containers"),
)  # fmt: skip
_CACHE_COLUMNS = (
    Column("CACHE ID", "ID"), Column("SIZE", "Size"), Column("LAST USED", "LastUsed"),
    Column("USAGE", "UsageCount"), Column("SHARED", "Shared"), Column("STEP", "Description"),
)  # fmt: skip


def usage(values: Values, arguments: list[str]) -> int:
    """Print what takes the disk."""
    found = session.get("/system/df")
    if not values.verbose:
        sys.stdout.write(format.listing(_overview(found), _COLUMNS, values.format))
        return 0
    parts = (
        ("Images", _IMAGE_COLUMNS, [_image_row(item) for item in found["Images"]]),
        ("Build cache", _CACHE_COLUMNS, [_cache_row(item) for item in found["BuildCache"]]),
    )
    for number, (heading, columns, rows) in enumerate(parts):
        sys.stdout.write("\n" * bool(number) + f"{heading}:\n\n")
        sys.stdout.write(format.listing(rows, columns, None))
    return 0


def _overview(found: dict[str, Any]) -> list[format.Row]:
    images, instances, cache = found["Images"], found["Containers"], found["BuildCache"]
    cached = sum(item["Size"] for item in cache if not item["Shared"])
    layers = found["LayersSize"] - cached
    used = sum(item["UniqueSize"] for item in images if item["Containers"])
    used += max((item["SharedSize"] for item in images if item["Containers"]), default=0)
    running = [item for item in instances if item["State"] == "running"]
    written = sum(item.get("SizeRw") or 0 for item in instances)
    idle = written - sum(item.get("SizeRw") or 0 for item in running)
    return [
        _row("Images", len(images), sum(bool(i["Containers"]) for i in images), layers,
             max(layers - used, 0)),
        _row("Instances", len(instances), len(running), written, idle),
        _row("Volumes", len(found["Volumes"]), -1, -1, -1),
        _row("Build cache", len(cache), 0, cached, cached),
    ]  # fmt: skip


def _row(kind: str, total: int, active: int, size: int, free: int) -> format.Row:
    share = f" ({100 * free // size}%)" if size > 0 else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active) if active >= 0 else "?",
        "Size": format.decimal_size(size) if size >= 0 else "?",
        "Reclaimable": format.decimal_size(free) + share if free >= 0 else "?",
    }


def _image_row(item: dict[str, Any]) -> format.Row:
    names = [name for name in item.get("RepoTags") or [] if name != "<none>:<none>"]
    repository, tag = split_name(names[0]) if names else ("<none>", "<none>")
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": format.short_id(item["Id"]),
        "Size": format.decimal_size(item["Size"]),
        "SharedSize": format.decimal_size(item["SharedSize"]),
        "UniqueSize": format.decimal_size(item["UniqueSize"]),
        "Containers": str(item["Containers"]),
    }


def _cache_row(item: dict[str, Any]) -> format.Row:
    return {
        "ID": format.short_id(item["ID"]),
        "Size": format.decimal_size(item["Size"]),
        "LastUsed": item["LastUsedAt"][:19].replace("T", " "),
        "UsageCount": str(item["UsageCount"]),
        "Shared": "true" if item["Shared"] else "false",
        "Description": format.shorten(" ".join(item["Description"].split()), 60),
    }


def prune(values: Values, arguments: list[str]) -> int:
    """Remove images that nobody needs."""
    chosen: dict[str, Any] = filters.parse(values.filter) or {}
    if values.all:
        chosen["dangling"] = ["false"]
    found = session.post("/images/prune", filters=chosen or None)
    for change in found["ImagesDeleted"] or []:
        for what, name in change.items():
            print(f"{what.lower()}: {name}")
    print(f"Total reclaimed space: {format.decimal_size(found['SpaceReclaimed'])}")
    return 0


def system_prune(values: Values, arguments: list[str]) -> int:
    """Remove what is not needed: ended instances, images, the build's cache."""
    chosen = {"dangling": ["false"]} if values.all else None
    parts = (
        ("/containers/prune", None, "ContainersDeleted", "instance"),
        ("/images/prune", chosen, "ImagesDeleted", "image"),
        ("/build/prune", None, "CachesDeleted", "cached step"),
    )
    freed = 0
    for path, given, key, what in parts:
        found = session.post(path, filters=given)
        freed += found["SpaceReclaimed"]
        gone = [item for item in found[key] or [] if isinstance(item, str) or "Deleted" in item]
        print(f"{len(gone)} {what}{'' if len(gone) == 1 else 's'} removed")
    print(f"Total reclaimed space: {format.decimal_size(freed)}")
    return 0


COMMANDS = {
    "system-prune": Command(
        "[OPTIONS]", "Remove ended instances, unneeded images and the build's cache", system_prune,
        (
            Option("-a, --all", "flag", "", "every image that no instance uses"),
            Option("-f, --force", "flag", "", "for docker's sake: nothing is asked anyway"),
        ),
        arguments=(0, 0),
    ),
    "df": Command(
        "[OPTIONS]", "Show what takes the disk", usage,
        (
            Option("-v, --verbose", "flag", "", "each image, each cached step"),
            Option("--format", "text", "FORMAT", "table, json, or a template like {{.Size}}"),
        ),
        arguments=(0, 0),
    ),
    "image-prune": Command(
        "[OPTIONS]", "Remove images without a name, and what was left of cut-off pulls", prune,
        (
            Option("-a, --all", "flag", "", "every image that no instance uses"),
            Option("-f, --force", "flag", "", "for docker's sake: nothing is asked anyway"),
            Option("--filter", "list", "KEY=VALUE", "only those that match (until, label)"),
        ),
        arguments=(0, 0),
    ),
}  # fmt: skip
