"""`proa disk`: what disks of vms are made of, who holds which bytes, and changing that."""

from __future__ import annotations

import os
import sys

from proa.cli import format, session
from proa.cli.each import each
from proa.cli.format import Column
from proa.cli.options import Command, Option, Values
from proa.client.connection import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORMAT = Option("--format", "text", "FORMAT", "table, json, or a template like {{.Path}}")
_CHAIN_COLUMNS = (
    Column("DISK", "Disk"), Column("STATE", "State"), Column("VIRTUAL", "Virtual"),
    Column("KIND", "Kind"), Column("FORMAT", "Format"), Column("SIZE", "Size"),
    Column("HOLDERS", "Holders"), Column("FILE", "Path"),
)  # fmt: skip
_TABLE_COLUMNS = (
    Column("KIND", "Kind"), Column("FORMAT", "Format"), Column("SIZE", "Size"),
    Column("HOLDERS", "Holders"), Column("FILE", "Path"),
)  # fmt: skip


def _path(instance: str, rest: str) -> str:
    return f"/proa/instances/{quote(instance)}{rest}"


def listing(values: Values, arguments: list[str]) -> int:
    """Print the files of an instance's disks, top first."""
    rows = [
        {
            **_row(file),
            "Disk": disk["Name"] if number == 0 else "",
            "State": disk["State"] if number == 0 else "",
            "Virtual": format.decimal_size(disk["VirtualSize"]) if number == 0 else "",
        }
        for disk in session.get(_path(arguments[0], "/disks"))
        for number, file in enumerate(disk["Files"])
    ]
    sys.stdout.write(format.listing(rows, _CHAIN_COLUMNS, values.format))
    return 0


def _row(file: dict[str, Any]) -> format.Row:
    return {
        "Kind": file["Kind"], "Format": file["Format"],
        "Size": format.decimal_size(file["Size"]), "Bytes": str(file["Size"]),
        "Holders": ", ".join(file["Holders"]), "Path": file["Path"],
    }  # fmt: skip


def usage(values: Values, arguments: list[str]) -> int:
    """Print who holds which bytes."""
    found = session.get("/proa/disks", instance=arguments[0] if arguments else None)
    rows = [_row(file) for file in found["Files"]]
    if not values.format:
        total = {"Kind": "total", "Size": format.decimal_size(found["Total"])}
        shared = {"Kind": "shared", "Size": format.decimal_size(found["Shared"])}
        empty = dict.fromkeys(("Format", "Holders", "Path", "Bytes"), "")
        rows += [{**empty, **shared}, {**empty, **total}]
    sys.stdout.write(format.listing(rows, _TABLE_COLUMNS, values.format))
    return 0


def flatten(values: Values, arguments: list[str]) -> int:
    """Make disks one file each."""
    return each(arguments, lambda name: session.call("POST", _path(name, "/flatten")))


def rebase(values: Values, arguments: list[str]) -> int:
    """Put a machine's disk over another base."""
    name, base = arguments
    body = {"Base": os.path.abspath(base), "Moved": values.moved}
    session.call("POST", _path(name, "/rebase"), body=body)
    print(name)
    return 0


def rollback(values: Values, arguments: list[str]) -> int:
    """Put an instance's files back."""
    name, *snapshot = arguments
    body = {"Snapshot": "".join(snapshot), "Force": values.force}
    session.call("POST", _path(name, "/rollback"), body=body)
    print(name)
    return 0


COMMANDS = {
    "disk-ls": Command(
        "[OPTIONS] INSTANCE", "Show the files that a vm's disks are made of", listing,
        (_FORMAT,), arguments=(1, 1),
    ),
    "disk-df": Command(
        "[OPTIONS] [INSTANCE]", "Show who holds which bytes of vms' disks", usage,
        (_FORMAT,), arguments=(0, 1),
    ),
    "disk-flatten": Command(
        "INSTANCE...", "Make a vm's disks files that need no other", flatten,
        arguments=(1, None),
    ),
    "disk-rebase": Command(
        "[OPTIONS] INSTANCE BASE", "Put a stopped machine's disk over another base", rebase,
        (Option("--moved", "flag", "", "BASE is the same disk in another place"),),
        arguments=(2, 2),
    ),
    "rollback": Command(
        "[OPTIONS] INSTANCE [SNAPSHOT]",
        "Put an instance's files back to its image's, or a snapshot's", rollback,
        (Option("-f, --force", "flag", "", "kill it when it runs"),),
        arguments=(1, 2),
    ),
}  # fmt: skip
