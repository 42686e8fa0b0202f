"""Volumes, and adding them, folders and disks to what runs."""

from __future__ import annotations

import os
import sys

from proa.cli import filters, format, session
from proa.cli.each import each
from proa.cli.format import Column
from proa.cli.options import Command, Option, Values
from proa.client.connection import quote
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (Column("DRIVER", "Driver"), Column("VOLUME NAME", "Name"))


def create(values: Values, arguments: list[str]) -> int:
    """Make a volume."""
    labels = {key: value for key, _, value in (text.partition("=") for text in values.label)}
    body = {"Name": arguments[0] if arguments else "", "Labels": labels}
    print(session.post("/volumes/create", body)["Name"])
    return 0


def listing(values: Values, arguments: list[str]) -> int:
    """List volumes."""
    items = session.get("/volumes", filters=filters.parse(values.filter))["Volumes"] or []
    if values.quiet and not values.format:
        sys.stdout.write("".join(f"{item['Name']}\n" for item in items))
        return 0
    rows = [
        {"Driver": item["Driver"], "Name": item["Name"], "Mountpoint": item["Mountpoint"]}
        for item in items
    ]
    sys.stdout.write(format.listing(rows, _COLUMNS, values.format))
    return 0


def inspect(values: Values, arguments: list[str]) -> int:
    """Print all that is known of volumes."""
    from proa.client import fastjson

    print(fastjson.dumps([session.get(f"/volumes/{quote(name)}") for name in arguments]))
    return 0


def remove(values: Values, arguments: list[str]) -> int:
    """Remove volumes and what is in them."""
    query: dict[str, object] = {"force": values.force}
    return each(arguments, lambda name: session.call("DELETE", f"/volumes/{quote(name)}", query))


def prune(values: Values, arguments: list[str]) -> int:
    """Remove volumes nobody uses."""
    answer = session.post("/volumes/prune", filters=filters.parse(values.filter))
    for name in answer["VolumesDeleted"] or ():
        print(name)
    return 0


def attach(values: Values, arguments: list[str]) -> int:
    """Let a volume or a directory appear in an instance."""
    instance, text = arguments
    session.post(_path(instance, "mounts"), mount(text))
    return 0


def mount(text: str) -> dict[str, Any]:
    """`SOURCE[:TARGET][:ro]` as the API's mount; a path is a directory of the host's."""
    source, *rest = text.split(":")
    readonly = bool(rest) and rest[-1] in ("ro", "rw")
    mode = rest.pop() if readonly else "rw"
    if not source or len(rest) > 1:
        raise Invalid(f"'{text}' is no volume to attach", hint="VOLUME[:TARGET][:ro]")
    bind = source.startswith((".", "/", "~"))
    if bind:
        source = os.path.abspath(os.path.expanduser(source))
    return {
        "Type": "bind" if bind else "volume", "Source": source, "ReadOnly": mode == "ro",
        "Target": rest[0] if rest else f"/mnt/{os.path.basename(source)}",
    }  # fmt: skip


def detach(values: Values, arguments: list[str]) -> int:
    """Take a volume or a directory from an instance."""
    instance, what = arguments
    session.call("DELETE", _path(instance, "mounts"), {"of": what})
    return 0


def attach_disk(values: Values, arguments: list[str]) -> int:
    """Plug a disk into a vm; its name inside is printed."""
    instance, *path = arguments
    body: dict[str, object] = {"ReadOnly": values.read_only, "Format": values.format or ""}
    if path:
        body["Path"] = os.path.abspath(path[0])
    if values.size:
        body["Size"] = values.size
    print(session.post(_path(instance, "disks"), body)["Name"])
    return 0


def detach_disk(values: Values, arguments: list[str]) -> int:
    """Unplug a disk."""
    instance, name = arguments
    session.call("DELETE", _path(instance, "disks"), {"of": name.removeprefix("/dev/")})
    return 0


def _path(instance: str, what: str) -> str:
    return f"/proa/instances/{quote(instance)}/{what}"


_FILTER = Option("--filter", "list", "KEY=VALUE", "only those that match")

COMMANDS = {
    "volume-create": Command(
        "[OPTIONS] [NAME]", "Make a volume", create,
        (Option("--label", "list", "KEY[=VALUE]", "label"),), arguments=(0, 1),
    ),
    "volume-ls": Command(
        "[OPTIONS]", "List volumes", listing,
        (
            Option("-q, --quiet", "flag", "", "only names"),
            Option("--format", "text", "FORMAT", "table, json, or a template like {{.Name}}"),
            _FILTER,
        ),
    ),
    "volume-inspect": Command(
        "VOLUME...", "Print all that is known of volumes", inspect, arguments=(1, None)
    ),
    "volume-rm": Command(
        "[OPTIONS] VOLUME...", "Remove volumes and what is in them", remove,
        (Option("-f, --force", "flag", "", "ignore a missing one"),), arguments=(1, None),
    ),
    "volume-prune": Command(
        "[OPTIONS]", "Remove volumes nobody uses", prune,
        (Option("-f, --force", "flag", "", "accepted, there is no question"), _FILTER),
    ),
    "volume-attach": Command(
        "INSTANCE VOLUME[:TARGET][:ro]", "Let a volume or a directory appear, also while it runs",
        attach, arguments=(2, 2),
    ),
    "volume-detach": Command(
        "INSTANCE VOLUME|TARGET", "Take a volume or a directory, also while it runs", detach,
        arguments=(2, 2),
    ),
    "disk-attach": Command(
        "[OPTIONS] INSTANCE [FILE]", "Plug a disk into a vm, also while it runs", attach_disk,
        (
            Option("--size", "bytes", "SIZE", "an empty disk of this size"),
            Option("--format", "text", "FORMAT", "raw or qcow2 (by default as FILE is called)"),
            Option("--read-only", "flag", "", "the guest cannot write to it"),
        ),
        arguments=(1, 2),
    ),
    "disk-detach": Command(
        "INSTANCE DISK", "Unplug an added disk; an empty one made for it is gone", detach_disk,
        arguments=(2, 2),
    ),
}  # fmt: skip
