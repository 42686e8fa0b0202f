"""What concerns instances as a whole: start to rm, ps, port, stats."""

from __future__ import annotations

import sys

from proa.cli import attached, filters, format, limits, session
from proa.cli.each import each
from proa.cli.format import Column
from proa.cli.options import Command, Option, Values
from proa.client.connection import instance_path
from proa.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_FORMAT = Option("--format", "text", "FORMAT", "table, json, or a template like {{.ID}}")
_TIME = Option("-t, --time", "integer", "SECONDS", "grace before it is killed")
_SIGNAL = Option("-s, --signal", "text", "SIGNAL", "signal to send")

_PS_COLUMNS = (
    Column("CONTAINER ID", "ID"), Column("IMAGE", "Image"), Column("COMMAND", "Command"),
    Column("CREATED", "RunningFor"), Column("STATUS", "Status"), Column("PORTS", "Ports"),
    Column("NAMES", "Names"), Column("ISOLATION", "Isolation"),
)  # fmt: skip


# -- one after the other ------------------------------------------------------------------------


def start(values: Values, arguments: list[str]) -> int:
    """Start instances; with -a stay attached to one."""
    if values.attach or values.interactive:
        if len(arguments) != 1:
            raise Invalid("only one instance can be started attached")
        return _start_attached(values, arguments[0])
    return each(arguments, session.start)


def _start_attached(values: Values, reference: str) -> int:
    details = session.get(instance_path(reference, "/json"))
    settings = details["Config"]
    stdin = bool(settings.get("OpenStdin")) and values.interactive
    attachment = attached.Attachment(values, tty=bool(settings.get("Tty")), stdin=stdin)
    if attachment.proxy:
        attachment.proxy.install()
    streams = session.connect(), session.connect()
    removed = details["HostConfig"].get("AutoRemove")
    code = attached.run(
        details["Id"],
        attachment,
        streams,
        condition="removed" if removed else "next-exit",
        start=lambda: session.start(details["Id"]),
    )
    return code or 0


def stop(values: Values, arguments: list[str]) -> int:
    """Stop instances, killing them after the grace."""
    return each(arguments, _poster("stop", t=values.time, signal=values.signal))


def restart(values: Values, arguments: list[str]) -> int:
    """Stop and start instances."""
    return each(arguments, _poster("restart", t=values.time, signal=values.signal))


def kill(values: Values, arguments: list[str]) -> int:
    """Send a signal."""
    return each(arguments, _poster("kill", signal=values.signal or "KILL"))


def pause(values: Values, arguments: list[str]) -> int:
    """Freeze instances."""
    return each(arguments, _poster("pause"))


def unpause(values: Values, arguments: list[str]) -> int:
    """Thaw instances."""
    return each(arguments, _poster("unpause"))


def _poster(verb: str, **query: object) -> Callable[[str], object]:
    return lambda reference: session.post(instance_path(reference, f"/{verb}"), **query)


def remove(values: Values, arguments: list[str]) -> int:
    """Remove instances."""
    query: dict[str, object] = {"force": values.force, "v": values.volumes}

    def one(reference: str) -> None:
        try:
            session.call("DELETE", instance_path(reference), query)
        except NotFound:
            if not values.force:
                raise

    return each(arguments, one)


def rename(values: Values, arguments: list[str]) -> int:
    """Give an instance another name."""
    session.post(instance_path(arguments[0], "/rename"), name=arguments[1])
    return 0


def update(values: Values, arguments: list[str]) -> int:
    """Change limits, of running instances at once."""
    body = limits.resources(values)
    if not body:
        raise Invalid("no limit is given", hint="see `proa update --help`")
    return each(
        arguments, lambda reference: session.post(instance_path(reference, "/update"), body)
    )


# -- lists --------------------------------------------------------------------------------------


def ps(values: Values, arguments: list[str]) -> int:
    """List instances."""
    everything = values.all or values.last > 0 or values.latest
    limit = 1 if values.latest else values.last
    items = session.get(
        "/containers/json",
        all=everything,
        limit=limit if limit > 0 else None,
        size=values.size or None,
        filters=filters.parse(values.filter),
    )
    if values.quiet and not values.format:
        ids = (i["Id"] if values.no_trunc else format.short_id(i["Id"]) for i in items)
        sys.stdout.write("".join(f"{identity}\n" for identity in ids))
        return 0
    columns = (*_PS_COLUMNS, Column("SIZE", "Size")) if values.size else _PS_COLUMNS
    rows = [_ps_row(item, values.no_trunc) for item in items]
    sys.stdout.write(format.listing(rows, columns, values.format))
    return 0


def _ps_row(item: dict[str, Any], full: bool) -> format.Row:
    command = item.get("Command") or ""
    image = item.get("Image") or ""
    return {
        "ID": item["Id"] if full else format.short_id(item["Id"]),
        "Image": image if full or not image.startswith("sha256:") else format.short_id(image),
        "Command": f'"{command if full else format.shorten(command, 20)}"',
        "CreatedAt": format.when(item["Created"]),
        "RunningFor": format.ago(item["Created"]),
        "State": item.get("State") or "",
        "Status": item.get("Status") or "",
        "Ports": ports(item.get("Ports") or []),
        "Names": ",".join(name.lstrip("/") for name in item.get("Names") or []),
        "Labels": ",".join(f"{k}={v}" for k, v in (item.get("Labels") or {}).items()),
        "Mounts": ",".join(_mount_name(m) for m in item.get("Mounts") or []),
        "Networks": ",".join((item.get("NetworkSettings") or {}).get("Networks") or {}),
        "Size": format.decimal_size(item.get("SizeRw") or 0),
        "Isolation": isolation(item),
    }


def isolation(item: dict[str, Any]) -> str:
    """The isolation an entry of the list names; empty when the engine does not say.

    What is emulated has its platform behind it.
    """
    own = item.get("Proa") or {}
    host = item.get("HostConfig") or {}
    found = str(own.get("isolation") or own.get("Isolation") or host.get("Isolation") or "")
    return f"{found} {own['Platform']}" if own.get("Platform") else found


def _mount_name(mount: dict[str, Any]) -> str:
    return str(mount.get("Name") or mount.get("Source") or "")


def ports(entries: list[dict[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp, 81/tcp`."""
    words = set()
    for entry in entries:
        inside = f"{entry['PrivatePort']}/{entry.get('Type', 'tcp')}"
        address = entry.get("IP") or ""
        address = f"[{address}]" if ":" in address else address
        public = entry.get("PublicPort")
        words.add(f"{address}:{public}->{inside}" if public else inside)
    return ", ".join(sorted(words))


def port(values: Values, arguments: list[str]) -> int:
    """Print published ports, or where one of them is."""
    details = session.get(instance_path(arguments[0], "/json"))
    published = (details.get("NetworkSettings") or {}).get("Ports") or {}
    wanted = arguments[1] if len(arguments) > 1 else None
    if wanted and "/" not in wanted:
        wanted += "/tcp"
    lines = []
    for inside, places in sorted(published.items()):
        for place in places or []:
            address = place.get("HostIp") or "0.0.0.0"
            outside = f"{f'[{address}]' if ':' in address else address}:{place['HostPort']}"
            if wanted is None:
                lines.append(f"{inside} -> {outside}")
            elif wanted == inside:
                lines.append(outside)
    if wanted and not lines:
        raise NotFound(f"port '{wanted}' of '{arguments[0]}' is not published")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def stats(values: Values, arguments: list[str]) -> int:
    """Print what instances use."""
    from proa.cli.stats import show

    return show(values, arguments)


COMMANDS = {
    "start": Command(
        "[OPTIONS] INSTANCE...", "Start instances", start,
        (
            Option("-a, --attach", "flag", "", "attach its output"),
            Option("-i, --interactive", "flag", "", "attach its input too"),
            *attached.OPTIONS,
        ),
        arguments=(1, None),
    ),
    "stop": Command(
        "[OPTIONS] INSTANCE...", "Stop instances", stop, (_TIME, _SIGNAL), arguments=(1, None)
    ),
    "restart": Command(
        "[OPTIONS] INSTANCE...", "Stop and start instances", restart, (_TIME, _SIGNAL),
        arguments=(1, None),
    ),
    "kill": Command(
        "[OPTIONS] INSTANCE...", "Send a signal (KILL)", kill, (_SIGNAL,), arguments=(1, None)
    ),
    "rm": Command(
        "[OPTIONS] INSTANCE...", "Remove instances", remove,
        (
            Option("-f, --force", "flag", "", "kill a running one; ignore a missing one"),
            Option("-v, --volumes", "flag", "", "remove its anonymous volumes too"),
        ),
        arguments=(1, None),
    ),
    "rename": Command("INSTANCE NAME", "Rename an instance", rename, arguments=(2, 2)),
    "update": Command(
        "[OPTIONS] INSTANCE...", "Change limits, also while it runs", update, limits.OPTIONS,
        arguments=(1, None),
    ),
    "pause": Command("INSTANCE...", "Freeze instances", pause, arguments=(1, None)),
    "unpause": Command("INSTANCE...", "Thaw instances", unpause, arguments=(1, None)),
    "ps": Command(
        "[OPTIONS]", "List instances", ps,
        (
            Option("-a, --all", "flag", "", "also those that do not run"),
            Option("-q, --quiet", "flag", "", "only ids"),
            Option("-f, --filter", "list", "KEY=VALUE", "only those that match"),
            Option("-n, --last", "integer", "NUMBER", "only the last created", -1),
            Option("-l, --latest", "flag", "", "only the last created one"),
            Option("-s, --size", "flag", "", "show what each wrote to its own layer"),
            Option("--no-trunc", "flag", "", "cut nothing short"),
            _FORMAT,
        ),
    ),
    "port": Command(
        "INSTANCE [PORT[/PROTOCOL]]", "Print published ports", port, arguments=(1, 2)
    ),
    "stats": Command(
        "[OPTIONS] [INSTANCE...]", "Print what instances use", stats,
        (
            Option("-a, --all", "flag", "", "also those that do not run"),
            Option("--no-stream", "flag", "", "once, not again and again"),
            Option("--no-trunc", "flag", "", "cut nothing short"),
            _FORMAT,
        ),
        arguments=(0, None),
    ),
}  # fmt: skip
