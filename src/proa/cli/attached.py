"""Being attached to an instance's main process, from start or later, until it ends."""

from __future__ import annotations

import os

from proa.cli.options import Option, Values
from proa.cli.signals import Proxy
from proa.client.connection import Answer, Connection, instance_path, target
from proa.errors import EngineUnavailable, Invalid, NotFound, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS = (
    Option("--sig-proxy", "flag", "", "pass signals on to the process", True),
    Option("--detach-keys", "text", "KEYS", "keys that detach", "ctrl-p,ctrl-q"),
)


class Attachment:
    """What to attach: which streams, whether there is a terminal, and what detaches."""

    def __init__(self, values: Values, *, tty: bool, stdin: bool) -> None:
        self.tty = tty
        self.stdin = stdin
        self.stdout = self.stderr = True
        self.proxy = Proxy() if values.sig_proxy else None
        self.keys = b""
        self._detach_keys = ""
        if tty and stdin:
            from proa.cli.terminal import detach_keys

            self._detach_keys = values.detach_keys
            self.keys = detach_keys(values.detach_keys)
            if not os.isatty(0):
                raise Invalid(
                    "'-t' with '-i' needs a terminal, and standard input is none",
                    hint="leave out -t",
                )

    def begin(self, connection: Connection, instance: str) -> None:
        """Ask for the stream."""
        query: dict[str, object] = {
            "stream": True,
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "detachKeys": self._detach_keys or None,
        }
        connection.begin_hijack("POST", target(f"/containers/{instance}/attach", query))

    def follow(self, connection: Connection, instance: str) -> bool:
        """Move bytes until the process's output ends; False when the user detached."""
        from proa.cli import pump

        if self.proxy:
            self.proxy.started(instance)
        if self.tty:
            from proa.cli import signals

            signals.send_size(f"/containers/{instance}/resize")
            signals.follow_size(f"/containers/{instance}/resize")
        work = pump.Pump(
            (connection.socket, connection.early),
            tty=self.tty,
            stdin=0 if self.stdin else None,
            keys=self.keys,
        )
        return pump.with_terminal(self.tty, self.stdin, work.run)


def run(
    instance: str,
    attachment: Attachment,
    connections: tuple[Connection, Connection],
    *,
    condition: str,
    start: Callable[[], None] | None,
) -> int | None:
    """Attach, wait, `start`: the exit code, or None when the user detached.

    Attach and wait are answered before the start, so nothing that the process says or does is
    missed; each keeps its connection to the end.
    """
    attached, waiting = connections
    attachment.begin(attached, instance)
    waiting.begin("POST", target(f"/containers/{instance}/wait", {"condition": condition}))
    attached.hijack()
    ended = waiting.finish()
    if start:
        start()
    if not attachment.follow(attached, instance):
        return None
    try:
        return exit_code(ended)
    except EngineUnavailable:
        return _ask_again(instance)


def _ask_again(instance: str) -> int:
    """The exit code from the next engine: instances outlive the one that was waiting for it."""
    from proa.cli import session

    path = instance_path(instance, "/wait")
    try:
        return exit_code(session.stream("POST", path, {"condition": "not-running"}))
    except NotFound:
        raise EngineUnavailable(
            f"the engine ended before the exit code of '{instance[:12]}' was known"
        ) from None


def exit_code(answer: Answer) -> int:
    """What a wait came to.  Raises ProaError when the wait itself failed."""
    result = answer.json() or {}
    error = (result.get("Error") or {}).get("Message")
    if error:
        raise ProaError(str(error))
    return int(result["StatusCode"]) & 0xFF
