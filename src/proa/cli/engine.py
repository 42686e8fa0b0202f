"""`proa engine start|stop|status|run`."""

from __future__ import annotations

import os
import sys

from proa.client import address, spawn
from proa.client.connection import Connection
from proa.errors import EngineUnavailable, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

STOP_TIMEOUT_SECONDS = 30.0
EXIT_NOT_RUNNING = 3  # as `systemctl status` has it


def start() -> int:
    """Start the engine unless it runs."""
    words = "started" if spawn.start() else "already runs"
    print(f"the engine {words}, listening at {address.socket_path()}")
    return 0


def stop() -> int:
    """End the engine and wait until it is gone; instances go on."""
    facts = _facts()
    if facts is None:
        print("the engine does not run")
        return 0
    try:
        ending = os.pidfd_open(facts["Pid"])
    except ProcessLookupError:
        ending = None
    with Connection(address.socket_path()) as connection:
        connection.request("POST", "/proa/engine/stop").read()
    if ending is not None:
        _await_end(ending, facts["Pid"])
    print("the engine stopped; instances go on")
    return 0


def _await_end(pidfd: int, pid: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(STOP_TIMEOUT_SECONDS * 1000):
        raise Timeout(
            f"the engine (process {pid}) did not end within {STOP_TIMEOUT_SECONDS:.0f} s",
            hint=f"see {spawn.log_path()}",
        )


def _facts() -> dict[str, Any] | None:
    """What the engine says of itself; None when none answers."""
    try:
        connection = Connection(address.socket_path())
    except EngineUnavailable:
        return None
    with connection:
        facts: dict[str, Any] = connection.request("GET", "/proa/engine").json()
    return facts


def status() -> int:
    """Say whether the engine runs, and where; with its last words when it does not."""
    path = address.socket_path()
    facts = _facts()
    if facts is None:
        print(f"the engine does not run: nothing answers at {path}")
        if last := spawn.last_log_line():
            print(f"its log ends with: {last}")
        return EXIT_NOT_RUNNING
    print(f"the engine runs: version {facts['Version']}, process {facts['Pid']}")
    print(f"socket {path}")
    print(f"root   {facts['Root']}")
    return 0


def run() -> NoReturn:
    """Become the engine, in the foreground."""
    sys.stdout.flush()
    environment = {**os.environ, "PYTHONPATH": spawn.SOURCE}
    os.execve(sys.executable, [sys.executable, "-m", "proa.api.serve"], environment)


VERBS: dict[str, Callable[[], int]] = {"start": start, "stop": stop, "status": status, "run": run}
