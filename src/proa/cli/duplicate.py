"""Copies of instances: fork, snapshots, suspend and resume."""

from __future__ import annotations

import sys

from proa.cli import format, session
from proa.cli.each import each
from proa.cli.format import Column
from proa.cli.options import Command, Option, Values
from proa.client import fastjson
from proa.client.connection import own_path, target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_QUIET = Option("-q, --quiet", "flag", "", "print names only")
_COLUMNS = (
    Column("NAME", "Name"), Column("CREATED", "Created"), Column("MEMORY", "Memory"),
    Column("STATE", "State"),
)  # fmt: skip


def fork(values: Values, arguments: list[str]) -> int:
    """Copy a running vm."""
    from proa.errors import Invalid

    count = arguments[1] if len(arguments) > 1 else "1"
    if not count.isascii() or not count.isdigit():
        raise Invalid(f"'{count}' is not a number of copies")
    made = session.post(own_path(arguments[0], "/fork"), count=int(count), name=values.name)
    for item in made["Instances"]:
        print(item["Name"])
    if not values.quiet:
        sys.stderr.write(
            f"{arguments[0]} stood still for {made['PausedNanoseconds'] / 1e6:.1f} ms; "
            f"{made['CopiedBytes'] / (1 << 20):.1f} MiB were its own\n"
        )
        for item in made["Instances"]:
            sys.stderr.write("".join(f"{item['Name']}: {line}\n" for line in _ports(item)))
    return 0


def _ports(item: dict[str, Any]) -> list[str]:
    return [
        f"{port} is at {at['HostIp']}:{at['HostPort']}"
        for port, where in (item["Ports"] or {}).items()
        for at in where or ()
    ]


def migrate(values: Values, arguments: list[str]) -> int:
    """Move a running vm to another engine of this host."""
    from proa.errors import Invalid

    if not values.to:
        raise Invalid("where to? --to unix:///path", hint="the socket of another engine")
    done = session.post(own_path(arguments[0], "/migrate"), to=values.to)
    print(arguments[0])
    if not values.quiet:
        sys.stderr.write(
            f"{arguments[0]} stood still for {done['PausedNanoseconds'] / 1e6:.1f} ms; "
            f"{done['SentBytes'] / (1 << 20):.1f} MiB were sent, "
            f"{done['LastBytes'] / (1 << 20):.1f} MiB of them then\n"
        )
    return 0


def suspend(values: Values, arguments: list[str]) -> int:
    """Save running vms and end them."""
    return each(arguments, lambda name: session.post(own_path(name, "/suspend")))


def resume(values: Values, arguments: list[str]) -> int:
    """Let suspended vms go on."""
    return each(arguments, lambda name: session.post(own_path(name, "/resume")))


def create(values: Values, arguments: list[str]) -> int:
    """Make a snapshot."""
    instance, name = arguments
    made = session.post(own_path(instance, "/snapshots"), name=name, memory=values.memory)
    print(name)
    if made["Memory"] and not values.quiet:
        sys.stderr.write(f"{instance} stood still for {made['PausedNs'] / 1e6:.1f} ms\n")
    return 0


def listing(values: Values, arguments: list[str]) -> int:
    """List an instance's snapshots."""
    found = session.get(own_path(arguments[0], "/snapshots"))
    if values.quiet:
        sys.stdout.write("".join(f"{item['Name']}\n" for item in found))
        return 0
    rows = [
        {
            "Name": item["Name"], "Created": format.ago(item["CreatedNs"] / 1e9),
            "Memory": "yes" if item["Memory"] else "no", "State": item["State"],
        }
        for item in found
    ]  # fmt: skip
    sys.stdout.write(format.listing(rows, _COLUMNS, values.format))
    return 0


def inspect(values: Values, arguments: list[str]) -> int:
    """Everything known of a snapshot."""
    print(fastjson.dumps(session.get(own_path(arguments[0], "/snapshot"), name=arguments[1])))
    return 0


def restore(values: Values, arguments: list[str]) -> int:
    """Put an instance back, or make another of a snapshot."""
    query: dict[str, object] = {"name": arguments[1], "as": getattr(values, "as")}
    made = session.call("POST", own_path(arguments[0], "/restore"), query)
    print(made["Name"])
    return 0


def push(values: Values, arguments: list[str]) -> int:
    """Send a snapshot with memory to a registry."""
    instance, name, to = arguments
    made = _with_login(to, own_path(instance, "/push-snapshot"), {"name": name, "to": to})
    print(made["Digest"])
    return 0


def pull(values: Values, arguments: list[str]) -> int:
    """A new instance of a snapshot in a registry."""
    query: dict[str, object] = {"from": arguments[0], "name": getattr(values, "as")}
    print(_with_login(arguments[0], "/proa/snapshots/pull", query)["Name"])
    return 0


def _with_login(name: str, path: str, query: dict[str, object]) -> Any:
    from proa.cli.registry import ask

    return ask("POST", target(path, query), name).json()


def remove(values: Values, arguments: list[str]) -> int:
    """Remove snapshots."""
    path = own_path(arguments[0], "/snapshots")
    return each(arguments[1:], lambda name: session.call("DELETE", path, {"name": name}))


COMMANDS = {
    "fork": Command(
        "[OPTIONS] INSTANCE [N]", "Make N copies of a running vm, processes and all",
        fork,
        (
            Option("--name", "text", "PREFIX", "names: PREFIX, or PREFIX-1, PREFIX-2, ..."),
            _QUIET,
        ),
        arguments=(1, 2),
    ),
    "migrate": Command(
        "--to SOCKET INSTANCE", "Move a running vm to another engine of this host",
        migrate,
        (Option("--to", "text", "SOCKET", "unix:///path of the other engine"), _QUIET),
        arguments=(1, 1),
    ),
    "suspend": Command(
        "INSTANCE...", "Save running vms to disk and end them", suspend, arguments=(1, None)
    ),
    "resume": Command("INSTANCE...", "Let suspended vms go on", resume, arguments=(1, None)),
    "snapshot-create": Command(
        "[OPTIONS] INSTANCE NAME", "Keep an instance's files, or its memory as well",
        create,
        (Option("--memory", "flag", "", "with the memory of a running vm"), _QUIET),
        arguments=(2, 2),
    ),
    "snapshot-ls": Command(
        "[OPTIONS] INSTANCE", "List an instance's snapshots",
        listing,
        (Option("--format", "text", "FORMAT", "table, json, or a template"), _QUIET),
        arguments=(1, 1),
    ),
    "snapshot-inspect": Command(
        "INSTANCE NAME", "Show all of a snapshot", inspect, arguments=(2, 2)
    ),
    "snapshot-restore": Command(
        "[OPTIONS] INSTANCE NAME", "Put an instance back to a snapshot",
        restore,
        (Option("--as", "text", "NAME", "make a new instance of it, this one stays as it is"),),
        arguments=(2, 2),
    ),
    "snapshot-push": Command(
        "INSTANCE NAME REPOSITORY[:TAG]", "Send a snapshot with memory to a registry",
        push, arguments=(3, 3),
    ),
    "snapshot-pull": Command(
        "[OPTIONS] REPOSITORY[:TAG]", "Go on from a snapshot in a registry, as a new instance",
        pull,
        (Option("--as", "text", "NAME", "the new instance's name"),),
        arguments=(1, 1),
    ),
    "snapshot-rm": Command(
        "INSTANCE NAME...", "Remove snapshots", remove, arguments=(2, None)
    ),
}  # fmt: skip
