"""`run` and `create`."""

from __future__ import annotations

import os
import sys

from proa.cli import config, session
from proa.cli.options import Command, Option, Values
from proa.client.connection import Answer, Connection, target
from proa.errors import Conflict, Invalid, NotFound, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RUN_OPTIONS = (
    *config.OPTIONS,
    Option("-d, --detach", "flag", "", "run in the background and print the id"),
    Option("-a, --attach", "list", "STREAM", "attach only to stdin, stdout or stderr"),
    Option("--sig-proxy", "flag", "", "pass signals on to the process", True),
    Option("--detach-keys", "text", "KEYS", "keys that detach", "ctrl-p,ctrl-q"),
    Option("--trace", "flag", "", "print when each milestone was reached"),
)


def create(values: Values, arguments: list[str]) -> int:
    """Create an instance and print its id."""
    request = config.body(values, arguments)
    _claim_cidfile(values)
    answer = session.post("/containers/create", request, name=values.name)
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
        return _run_detached(values, request)
    return _Foreground(values, request).run()


def _run_detached(values: Values, request: dict[str, Any]) -> int:
    stages = session.Stages() if values.trace else None
    answer = session.post("/containers/create", request, name=values.name)
    instance = answer["Id"]
    _announce(answer, values)
    try:
        session.post(f"/containers/{instance}/start")
    except ProaError:
        if values.rm:
            _discard(instance)
        raise
    print(instance)
    if stages:
        stages.mark("reply")
        _print_trace(instance, stages)
    return 0


class _Foreground:
    """One attached run: three connections, because attach and wait keep theirs to the end."""

    def __init__(self, values: Values, request: dict[str, Any]) -> None:
        self.values = values
        self.request = request
        self.remove_here = bool(values.rm and values.trace)  # the trace goes with the instance
        self.stages = session.Stages() if values.trace else None
        wanted = {name.lower() for name in values.attach} or {"stdin", "stdout", "stderr"}
        if unknown := wanted - {"stdin", "stdout", "stderr"}:
            raise Invalid(f"unknown stream '{unknown.pop()}'", hint="stdin, stdout or stderr")
        self.stdin = bool(values.interactive and "stdin" in wanted)
        self.stdout, self.stderr = "stdout" in wanted, "stderr" in wanted

    def run(self) -> int:
        """The exit code of the process."""
        self._prepare()
        from proa.cli.signals import Proxy

        proxy = Proxy() if self.values.sig_proxy else None
        if proxy:
            proxy.install()
        control = session.connect()
        self._mark("connected")
        url = target("/containers/create", {"name": self.values.name})
        control.begin("POST", url, self.request)
        attached, waiting = session.connect(), session.connect()
        answer = control.finish().json()
        self._mark("created")
        instance = answer["Id"]
        _announce(answer, self.values)
        try:
            return self._start(instance, (control, attached, waiting), proxy)
        finally:
            if self.remove_here:
                _discard(instance)

    def _prepare(self) -> None:
        host = self.request["HostConfig"]
        if self.remove_here:
            host["AutoRemove"] = False
        self.request.update(
            AttachStdin=self.stdin, AttachStdout=self.stdout, AttachStderr=self.stderr
        )
        if not self.values.tty:
            return
        if self.stdin and not os.isatty(0):
            raise Invalid("'-t' needs a terminal, and standard input is none", hint="leave out -t")
        from proa.cli.terminal import size

        if now := size():
            host["ConsoleSize"] = list(now)

    def _start(
        self,
        instance: str,
        connections: tuple[Connection, Connection, Connection],
        proxy: Any,
    ) -> int:
        control, attached, waiting = connections
        path = f"/containers/{instance}"
        attached.begin_hijack("POST", target(f"{path}/attach", self._attach_query()))
        condition = "removed" if self.values.rm and not self.remove_here else "next-exit"
        waiting.begin("POST", target(f"{path}/wait", {"condition": condition}))
        stream = attached.hijack()
        ended = waiting.finish()
        try:
            control.request("POST", f"{path}/start").read()
        except ProaError:
            if self.values.rm:
                _discard(instance)
            raise
        self._mark("started")
        if proxy:
            proxy.started(instance)
        if self.values.tty and self.stdin:
            from proa.cli import signals

            signals.send_size(f"{path}/resize")
            signals.follow_size(f"{path}/resize")
        if not self._pump(stream):
            return 0
        self._mark("output ended")
        code = exit_code(ended)
        self._mark("exit known")
        if self.stages:
            _print_trace(instance, self.stages)
        return code

    def _attach_query(self) -> dict[str, object]:
        return {
            "stream": True,
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
        }

    def _pump(self, stream: Any) -> bool:
        from proa.cli.pump import Pump, with_terminal

        keys = b""
        if self.stdin and self.values.tty:
            from proa.cli.terminal import detach_keys

            keys = detach_keys(self.values.detach_keys)
        pump = Pump(
            stream, tty=self.values.tty, stdin=0 if self.stdin else None, keys=keys
        )
        return with_terminal(self.values.tty, self.stdin, pump.run)

    def _mark(self, name: str) -> None:
        if self.stages:
            self.stages.mark(name)


def exit_code(answer: Answer) -> int:
    """What a wait came to.  Raises ProaError when the wait itself failed."""
    result = answer.json() or {}
    error = (result.get("Error") or {}).get("Message")
    if error:
        raise ProaError(str(error))
    return int(result["StatusCode"]) & 0xFF


def _announce(answer: dict[str, Any], values: Values) -> None:
    for warning in answer.get("Warnings") or []:
        sys.stderr.write(f"warning: {warning}\n")
    if values.cidfile:
        with open(values.cidfile, "x") as file:
            file.write(answer["Id"])


def _claim_cidfile(values: Values) -> None:
    if values.cidfile and os.path.lexists(values.cidfile):  # noqa: PTH
        raise Conflict(
            f"the id file '{values.cidfile}' exists already", hint="remove it, or name another"
        )


def _discard(instance: str) -> None:
    try:
        session.call("DELETE", f"/containers/{instance}", {"force": True, "v": True})
    except (NotFound, Conflict):
        return  # gone, or being removed


def _print_trace(instance: str, stages: session.Stages) -> None:
    from proa.cli.trace import table

    sys.stdout.flush()
    sys.stderr.write(table(session.get(f"/proa/instances/{instance}/trace"), stages.marks))


COMMANDS = {
    "run": Command(
        "[OPTIONS] IMAGE [COMMAND [ARGUMENT...]]",
        "Run a command in a new instance",
        run,
        _RUN_OPTIONS,
        arguments=(1, None),
        stops=True,
    ),
    "create": Command(
        "[OPTIONS] IMAGE [COMMAND [ARGUMENT...]]",
        "Create an instance without starting it",
        create,
        config.OPTIONS,
        arguments=(1, None),
        stops=True,
    ),
}
