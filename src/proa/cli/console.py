"""`console`: a machine's serial console."""

from __future__ import annotations

import sys

from proa.cli import session
from proa.cli.options import Command, Option, Values
from proa.client.connection import instance_path, target
from proa.errors import Conflict, Unsupported

KEYS = "ctrl-p,ctrl-q"


def console(values: Values, arguments: list[str]) -> int:
    """Join the console of a running machine until the keys that leave it, or its end."""
    from proa.cli import pump, terminal

    (instance,) = arguments
    details = session.get(instance_path(instance, "/json"))
    if "Firmware" not in details["Proa"] and details["State"]["Running"]:
        raise Unsupported(
            f"instance '{instance}' has no serial console",
            hint="only machines that boot a disk have one; see `proa attach`",
        )
    if not details["State"]["Running"] or details["State"]["Paused"]:
        raise Conflict(f"instance '{instance}' is {details['State']['Status']}", hint="start it")
    keys = terminal.detach_keys(values.detach_keys)
    query: dict[str, object] = {"stream": True, "stdin": True, "stdout": True, "stderr": True}
    query |= {"logs": values.logs, "detachKeys": values.detach_keys}
    connection = session.connect()
    connection.begin_hijack("POST", target(f"/containers/{details['Id']}/attach", query))
    connection.hijack()
    sys.stderr.write(f"console of '{instance}'; leave it with {values.detach_keys}\n")
    stream = (connection.socket, connection.early)
    work = pump.Pump(stream, tty=bool(details["Config"].get("Tty")), stdin=0, keys=keys)
    left = not pump.with_terminal(True, True, work.run)
    sys.stderr.write("\nleft the console\n" if left else "\nthe machine ended\n")
    return 0


COMMANDS = {
    "console": Command(
        "[OPTIONS] INSTANCE",
        "Join the serial console of a machine",
        console,
        (
            Option("--detach-keys", "text", "KEYS", "keys that leave the console", KEYS),
            Option("--logs", "flag", "", "show first what it has said so far"),
        ),
        arguments=(1, 1),
    ),
}
