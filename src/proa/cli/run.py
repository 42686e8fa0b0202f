"""`run` and `create`."""

from __future__ import annotations

import os
import sys

from proa.cli import attached, config, session
from proa.cli.attached import Attachment
from proa.cli.options import Option, OptionsFirst, Values
from proa.client.connection import Connection, target
from proa.errors import Conflict, ImageNotFound, Invalid, NotFound, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RUN_OPTIONS = (
    *config.OPTIONS,
    Option("-d, --detach", "flag", "", "run in the background and print the id"),
    Option("-a, --attach", "list", "STREAM", "attach only to stdin, stdout or stderr"),
    *attached.OPTIONS,
    Option("--trace", "flag", "", "print when each milestone was reached"),
)


def create(values: Values, arguments: list[str]) -> int:
    """Create an instance and print its id."""
    request = config.body(values, arguments)
    _claim_cidfile(values)
    answer = _create(session.connect(), request, values)
    _announce(answer, values)
    print(answer["Id"])
    return 0


def run(values: Values, arguments: list[str]) -> int:
    """Create and start; stay until the end unless detached."""
    request = config.body(values, arguments)
    if values.detach and values.attach:
        raise Invalid("'--attach' contradicts '--detach'")
    _claim_cidfile(values)
    if values.detach:
        request["StdinOnce"] = False  # whoever attaches later may leave and come back
        return _run_detached(values, request)
    return _run_attached(values, request)


def _run_detached(values: Values, request: dict[str, Any]) -> int:
    stages = session.Stages() if values.trace else None
    answer = _create(session.connect(), request, values)
    instance = answer["Id"]
    _announce(answer, values)
    try:
        session.start(instance)
    except ProaError:
        if values.rm:
            _discard(instance)
        raise
    print(instance)
    if stages:
        stages.mark("reply")
        _print_trace(instance, stages)
    return 0


def _run_attached(values: Values, request: dict[str, Any]) -> int:
    """Three connections: control, and one each for attach and wait, made while the engine works."""
    remove_here = bool(values.rm and values.trace)  # because the trace goes with the instance
    stages = session.Stages() if values.trace else None
    attachment = _attachment(values, request)
    request["HostConfig"]["AutoRemove"] = values.rm and not remove_here
    if attachment.proxy:
        attachment.proxy.install()
    control = session.connect()
    _ask_to_create(control, request, values)
    streams = session.connect(), session.connect()
    answer = _created(control, request, values)
    instance = answer["Id"]
    _announce(answer, values)

    def start() -> None:
        _mark(stages, "created")
        try:
            session.start(instance, control)
        except ProaError:
            if values.rm:
                _discard(instance)
            raise
        _mark(stages, "started")

    condition = "removed" if values.rm and not remove_here else "next-exit"
    detached = False
    try:
        code = attached.run(instance, attachment, streams, condition=condition, start=start)
        detached = code is None
        if stages:
            stages.mark("detached" if detached else "exit known")
            _print_trace(instance, stages)
    finally:
        if remove_here and not detached:
            _discard(instance)
    if remove_here and detached:
        sys.stderr.write(f"warning: '{instance[:12]}' stays when it ends, because of --trace\n")
    return code or 0


def _create(control: Connection, request: dict[str, Any], values: Values) -> dict[str, Any]:
    _ask_to_create(control, request, values)
    return _created(control, request, values)


def _ask_to_create(control: Connection, request: dict[str, Any], values: Values) -> None:
    if values.pull == "always":
        _pull(request, values)
    query = {"name": values.name, "platform": values.platform}
    control.begin("POST", target("/containers/create", query), request)


def _created(control: Connection, request: dict[str, Any], values: Values) -> dict[str, Any]:
    """The answer; an image that is missing is pulled, and the request made again."""
    try:
        answer = control.finish()
    except ImageNotFound:
        if values.pull is not None and values.pull != "missing":
            raise
        sys.stderr.write(f"Unable to find image '{request['Image']}' locally\n")
        _pull(request, values)
        _ask_to_create(control, request, values)
        answer = control.finish()
    made: dict[str, Any] = answer.json()
    return made


def _pull(request: dict[str, Any], values: Values) -> None:
    from proa.cli.registry import fetch

    fetch(request["Image"], values.platform)


def _attachment(values: Values, request: dict[str, Any]) -> Attachment:
    """The streams wanted, also put into the request."""
    wanted = {name.lower() for name in values.attach} or {"stdin", "stdout", "stderr"}
    if unknown := wanted - {"stdin", "stdout", "stderr"}:
        raise Invalid(f"unknown stream '{unknown.pop()}'", hint="stdin, stdout or stderr")
    stdin = bool(values.interactive and "stdin" in wanted)
    attachment = Attachment(values, tty=values.tty, stdin=stdin)
    attachment.stdout, attachment.stderr = "stdout" in wanted, "stderr" in wanted
    request.update(
        AttachStdin=stdin, AttachStdout=attachment.stdout, AttachStderr=attachment.stderr
    )
    if values.tty:
        from proa.cli.terminal import size

        if now := size():
            request["HostConfig"]["ConsoleSize"] = list(now)
    return attachment


def _mark(stages: session.Stages | None, name: str) -> None:
    if stages:
        stages.mark(name)


def _announce(answer: dict[str, Any], values: Values) -> None:
    for warning in answer.get("Warnings") or []:
        sys.stderr.write(f"warning: {warning}\n")
    if values.cidfile:
        with open(values.cidfile, "x") as file:
            file.write(answer["Id"])


def _claim_cidfile(values: Values) -> None:
    if values.cidfile and os.path.lexists(values.cidfile):
        raise Conflict(
            f"the id file '{values.cidfile}' exists already", hint="remove it, or name another"
        )


def _discard(instance: str) -> None:
    try:
        session.call("DELETE", f"/containers/{instance}", {"force": True, "v": True})
    except (NotFound, Conflict):
        return  # gone, or being removed


def _print_trace(instance: str, stages: session.Stages) -> None:
    from proa.cli.trace import trace

    sys.stdout.flush()
    sys.stderr.write(trace(session.get(f"/proa/instances/{instance}/trace"), stages.marks))


COMMANDS = {
    "run": OptionsFirst(
        "[OPTIONS] IMAGE|DISK [COMMAND [ARGUMENT...]]",
        "Run a command in a new instance",
        run,
        _RUN_OPTIONS,
        arguments=(0, None),
    ),
    "create": OptionsFirst(
        "[OPTIONS] IMAGE|DISK [COMMAND [ARGUMENT...]]",
        "Create an instance without starting it",
        create,
        config.OPTIONS,
        arguments=(0, None),
    ),
}
