"""Networks: made, listed, joined, left."""

from __future__ import annotations

import sys

from proa.cli import filters, format, session
from proa.cli.each import each
from proa.cli.format import Column
from proa.cli.options import Command, Option, Values
from proa.client.connection import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    Column("NETWORK ID", "ID"), Column("NAME", "Name"), Column("DRIVER", "Driver"),
    Column("SUBNET", "Subnet"),
)  # fmt: skip


def create(values: Values, arguments: list[str]) -> int:
    """Make a network."""
    pool = {"Subnet": values.subnet or "", "Gateway": values.gateway or ""}
    body: dict[str, Any] = {
        "Name": arguments[0], "Driver": values.driver or "bridge", "Internal": values.internal,
        "Labels": _pairs(values.label), "Options": _pairs(values.opt),
        "IPAM": {"Config": [pool] if any(pool.values()) else []},
    }  # fmt: skip
    print(session.post("/networks/create", body)["Id"])
    return 0


def _pairs(texts: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def listing(values: Values, arguments: list[str]) -> int:
    """List networks."""
    items = session.get("/networks", filters=filters.parse(values.filter))
    if values.quiet and not values.format:
        sys.stdout.write("".join(f"{format.short_id(item['Id'])}\n" for item in items))
        return 0
    rows = [_row(item, values.no_trunc) for item in items]
    sys.stdout.write(format.listing(rows, _COLUMNS, values.format))
    return 0


def _row(item: dict[str, Any], full: bool) -> format.Row:
    pools = item["IPAM"]["Config"] or []
    return {
        "ID": item["Id"] if full else format.short_id(item["Id"]), "Name": item["Name"],
        "Driver": item["Driver"], "Scope": item["Scope"],
        "Subnet": ",".join(pool["Subnet"] for pool in pools),
        "Internal": str(item["Internal"]).lower(),
        "Labels": ",".join(f"{key}={value}" for key, value in (item["Labels"] or {}).items()),
    }  # fmt: skip


def inspect(values: Values, arguments: list[str]) -> int:
    """Print all that is known of networks."""
    from proa.client import fastjson

    found = [session.get(f"/networks/{quote(name)}") for name in arguments]
    print(fastjson.dumps(found))
    return 0


def remove(values: Values, arguments: list[str]) -> int:
    """Remove networks."""
    return each(arguments, lambda name: session.call("DELETE", f"/networks/{quote(name)}"))


def prune(values: Values, arguments: list[str]) -> int:
    """Remove networks no instance is in."""
    answer = session.post("/networks/prune", filters=filters.parse(values.filter))
    for name in answer["NetworksDeleted"] or ():
        print(name)
    return 0


def connect(values: Values, arguments: list[str]) -> int:
    """Let an instance join a network."""
    network, instance = arguments
    settings: dict[str, Any] = {"Aliases": values.alias}
    if values.ip:
        settings["IPAMConfig"] = {"IPv4Address": values.ip}
    body = {"Container": instance, "EndpointConfig": settings}
    session.post(f"/networks/{quote(network)}/connect", body)
    return 0


def disconnect(values: Values, arguments: list[str]) -> int:
    """Let an instance leave a network."""
    network, instance = arguments
    body = {"Container": instance, "Force": values.force}
    session.post(f"/networks/{quote(network)}/disconnect", body)
    return 0


_FILTER = Option("-f, --filter", "list", "KEY=VALUE", "only those that match")

COMMANDS = {
    "network-create": Command(
        "[OPTIONS] NAME", "Make a network", create,
        (
            Option("-d, --driver", "text", "bridge", "the kind of network"),
            Option("--subnet", "text", "NETWORK", "its addresses, like 10.7.0.0/16"),
            Option("--gateway", "text", "ADDRESS", "the host's address in it"),
            Option("--internal", "flag", "", "no way out of it"),
            Option("--label", "list", "KEY[=VALUE]", "label"),
            Option("-o, --opt", "list", "KEY=VALUE", "option, kept and shown only"),
        ),
        arguments=(1, 1),
    ),
    "network-ls": Command(
        "[OPTIONS]", "List networks", listing,
        (
            Option("-q, --quiet", "flag", "", "only ids"),
            Option("--no-trunc", "flag", "", "whole ids"),
            Option("--format", "text", "FORMAT", "table, json, or a template like {{.ID}}"),
            _FILTER,
        ),
    ),
    "network-inspect": Command("NETWORK...", "Print all that is known of networks", inspect,
                               arguments=(1, None)),
    "network-rm": Command("NETWORK...", "Remove networks", remove, arguments=(1, None)),
    "network-prune": Command(
        "[OPTIONS]", "Remove networks no instance is in", prune,
        (Option("-f, --force", "flag", "", "accepted, there is no question"),
         Option("--filter", "list", "KEY=VALUE", "only those that match")),
    ),
    "network-connect": Command(
        "[OPTIONS] NETWORK INSTANCE", "Let an instance join a network, also while it runs", connect,
        (
            Option("--alias", "list", "NAME", "a further name of it there"),
            Option("--ip", "text", "ADDRESS", "its address there"),
        ),
        arguments=(2, 2),
    ),
    "network-disconnect": Command(
        "[OPTIONS] NETWORK INSTANCE", "Let an instance leave a network, also while it runs",
        disconnect, (Option("-f, --force", "flag", "", "accepted"),), arguments=(2, 2),
    ),
}  # fmt: skip
