"""What concerns processes in an instance: exec, attach, logs, top, wait, cp."""

from __future__ import annotations

import os
import sys
import time

from proa.cli import attached, config, session
from proa.cli.options import Command, Option, OptionsFirst, Values
from proa.client.connection import Connection, instance_path
from proa.errors import Conflict, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXEC_OPTIONS = (
    Option("-i, --interactive", "flag", "", "keep standard input open"),
    Option("-t, --tty", "flag", "", "give the process a terminal"),
    Option("-d, --detach", "flag", "", "run in the background"),
    Option("-e, --env", "list", "KEY[=VALUE]", "set an environment variable"),
    Option("--env-file", "list", "FILE", "read environment variables from a file"),
    Option("-w, --workdir", "text", "PATH", "working directory inside"),
    Option("-u, --user", "text", "USER[:GROUP]", "user inside"),
    Option("--privileged", "flag", "", "with all capabilities the instance may have"),
    Option("--detach-keys", "text", "KEYS", "keys that detach", "ctrl-p,ctrl-q"),
)
_LOGS_OPTIONS = (
    Option("-f, --follow", "flag", "", "go on until the instance ends"),
    Option("--since", "text", "TIME", "from that time on, like 10m or 2026-11-23T06:00:00Z"),
    Option("--until", "text", "TIME", "before that time"),
    Option("-n, --tail", "text", "LINES", "so many lines from the end", "all"),
    Option("-t, --timestamps", "flag", "", "show when each line was written"),
)


def execute(values: Values, arguments: list[str]) -> int:
    """Run a command in a running instance; its exit code."""
    instance, *command = arguments
    stdin = values.interactive and not values.detach
    request: dict[str, Any] = {
        "Cmd": command,
        "Tty": values.tty,
        "AttachStdin": stdin,
        "AttachStdout": not values.detach,
        "AttachStderr": not values.detach,
        "Env": config.environment(values),
        "User": values.user or "",
        "WorkingDir": values.workdir or "",
        "Privileged": values.privileged,
        "DetachKeys": values.detach_keys if values.tty and stdin else "",
    }
    if values.tty and stdin and not os.isatty(0):
        raise Invalid("'-t' with '-i' needs a terminal, and standard input is none")
    control = session.connect()
    control.begin("POST", instance_path(instance, "/exec"), request)
    stream = session.connect()
    identity = control.finish().json()["Id"]
    start = {"Detach": values.detach, "Tty": values.tty}
    if values.tty:
        from proa.cli.terminal import size

        if now := size():
            start["ConsoleSize"] = list(now)
    if values.detach:
        control.request("POST", f"/exec/{identity}/start", start).read()
        return 0
    stream.begin_hijack("POST", f"/exec/{identity}/start", start)
    stream.hijack()
    if not _follow_exec(values, stream, identity, stdin):
        return 0
    return _exec_code(control, identity)


def _exec_code(control: Connection, identity: str) -> int:
    """The exit code; the engine may learn of the end a moment after its output has ended.

    A process that closed its output and goes on is left alone, as docker does.
    """
    delay_seconds = 0.001
    while True:
        state = control.request("GET", f"/exec/{identity}/json").json()
        if not state.get("Running") or delay_seconds > 0.5:
            return int(state.get("ExitCode") or 0) & 0xFF
        time.sleep(delay_seconds)
        delay_seconds *= 2


def _follow_exec(values: Values, stream: Connection, identity: str, stdin: bool) -> bool:
    from proa.cli import pump, signals

    keys = b""
    if values.tty:
        signals.send_size(f"/exec/{identity}/resize")
        signals.follow_size(f"/exec/{identity}/resize")
        if stdin:
            from proa.cli.terminal import detach_keys

            keys = detach_keys(values.detach_keys)
    work = pump.Pump(
        (stream.socket, stream.early), tty=values.tty, stdin=0 if stdin else None, keys=keys
    )
    return pump.with_terminal(values.tty, stdin, work.run)


def attach(values: Values, arguments: list[str]) -> int:
    """Attach to the main process of a running instance; its exit code."""
    (instance,) = arguments
    details = session.get(instance_path(instance, "/json"))
    state = details["State"]
    if not state.get("Running") or state.get("Paused"):
        raise Conflict(
            f"instance '{instance}' is {state.get('Status') or 'not running'}",
            hint=f"start it with `proa start --attach {instance}`",
        )
    settings = details["Config"]
    stdin = bool(settings.get("OpenStdin")) and not values.no_stdin
    attachment = attached.Attachment(values, tty=bool(settings.get("Tty")), stdin=stdin)
    if attachment.proxy:
        attachment.proxy.install()
    streams = session.connect(), session.connect()
    code = attached.run(details["Id"], attachment, streams, condition="not-running", start=None)
    return code or 0


def logs(values: Values, arguments: list[str]) -> int:
    """Print what an instance has written."""
    from proa.cli.format import moment
    from proa.cli.pump import write_all
    from proa.client.streams import STDERR, Demultiplexer, Plain

    (instance,) = arguments
    details = session.get(instance_path(instance, "/json"))
    query: dict[str, object] = {
        "stdout": True,
        "stderr": True,
        "follow": values.follow,
        "tail": values.tail,
        "timestamps": values.timestamps,
        "since": moment(values.since) if values.since else None,
        "until": moment(values.until) if values.until else None,
    }
    cutter = Plain() if details["Config"].get("Tty") else Demultiplexer()
    for data in session.stream("GET", f"/containers/{details['Id']}/logs", query).parts():
        for stream, piece in cutter.feed(data):
            write_all(2 if stream == STDERR else 1, piece)
    return 0


def top(values: Values, arguments: list[str]) -> int:
    """Print the processes of an instance."""
    from proa.cli.format import table

    instance, *ps_arguments = arguments
    query = " ".join(ps_arguments) or None
    answer = session.get(instance_path(instance, "/top"), ps_args=query)
    sys.stdout.write(table(answer["Titles"], answer["Processes"]))
    return 0


def wait(values: Values, arguments: list[str]) -> int:
    """Wait until each instance has ended; print their exit codes."""
    from proa.cli.each import each

    def one(instance: str) -> None:
        path = instance_path(instance, "/wait")
        query: dict[str, object] = {"condition": "not-running"}
        print(attached.exit_code(session.stream("POST", path, query)), flush=True)

    return each(arguments, one, echo=False)


def copy(values: Values, arguments: list[str]) -> int:
    """Copy files between an instance and here."""
    from proa.cli.copy import copy as work

    return work(arguments[0], arguments[1], follow=values.follow_link, archive=values.archive)


COMMANDS = {
    "exec": OptionsFirst(
        "[OPTIONS] INSTANCE COMMAND [ARGUMENT...]",
        "Run a command in a running instance",
        execute,
        _EXEC_OPTIONS,
        arguments=(2, None),
    ),
    "attach": Command(
        "[OPTIONS] INSTANCE",
        "Attach to the main process of a running instance",
        attach,
        (*attached.OPTIONS, Option("--no-stdin", "flag", "", "do not pass standard input")),
        arguments=(1, 1),
    ),
    "logs": Command(
        "[OPTIONS] INSTANCE",
        "Print what an instance has written",
        logs,
        _LOGS_OPTIONS,
        arguments=(1, 1),
    ),
    "top": OptionsFirst(
        "INSTANCE [PS-OPTIONS]",
        "Print the processes of an instance",
        top,
        arguments=(1, None),
    ),
    "wait": Command(
        "INSTANCE...",
        "Wait until instances end and print their exit codes",
        wait,
        arguments=(1, None),
    ),
    "cp": Command(
        "[OPTIONS] INSTANCE:PATH PATH|-  or  PATH|- INSTANCE:PATH",
        "Copy files between an instance and here; - is a tar stream",
        copy,
        (
            Option("-a, --archive", "flag", "", "keep user and group ids"),
            Option("-L, --follow-link", "flag", "", "follow a symbolic link in the source"),
            Option("-q, --quiet", "flag", "", "print no progress (there is none)"),
        ),
        arguments=(2, 2),
    ),
}
